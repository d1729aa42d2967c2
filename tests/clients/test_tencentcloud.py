"""tencentcloud-sdk-python-ags, unmodified: tools, instances, tokens, keys and error codes."""

import os
import uuid

import pytest

pytest.importorskip("tencentcloud.ags")

from tencentcloud.ags.v20250920 import ags_client, models
from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

from conftest import AUTHORITIES, GATEWAY, URL

OWNER = "AGS_GATEWAY" if GATEWAY else "AGS_EMULATOR"
SECRET_ID = os.environ[f"{OWNER}_SECRET_ID"]
SECRET_KEY = os.environ[f"{OWNER}_SECRET_KEY"]

cloud_only = pytest.mark.skipif(GATEWAY, reason="about what the cloud alone decides")


def connect(secret_key=SECRET_KEY, secret_id=SECRET_ID, method="POST", unsigned=False):
    scheme, _, endpoint = URL.partition("://")
    http = HttpProfile(protocol=scheme, endpoint=endpoint, reqMethod=method, reqTimeout=30, certification=AUTHORITIES)
    profile = ClientProfile(httpProfile=http)
    profile.unsignedPayload = unsigned
    return ags_client.AgsClient(credential.Credential(secret_id, secret_key), "ap-guangzhou", profile)


@pytest.fixture
def client():
    return connect()


def make(request_type, **fields):
    request = request_type()
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def pair(request_type, name, value):
    first = "Key" if hasattr(request_type(), "Key") else "Name"
    return make(request_type, **{first: name, "Value": value})


def tool_request(name, **fields):
    network = make(models.NetworkConfiguration, NetworkMode="PUBLIC")
    return make(models.CreateSandboxToolRequest, ToolName=name, ToolType="custom", NetworkConfiguration=network, **fields)


@pytest.fixture
def tool(client):
    name = f"tool-{uuid.uuid4().hex[:12]}"
    tool_id = client.CreateSandboxTool(tool_request(name, DefaultTimeout="10m")).ToolId
    yield tool_id, name
    instances = client.DescribeSandboxInstanceList(make(models.DescribeSandboxInstanceListRequest, ToolId=tool_id, Limit=100))
    for instance in instances.InstanceSet:
        if instance.Status not in ("STOPPED", "FAILED", "STARTING_FAILED"):
            client.StopSandboxInstance(make(models.StopSandboxInstanceRequest, InstanceId=instance.InstanceId))
    client.DeleteSandboxTool(make(models.DeleteSandboxToolRequest, ToolId=tool_id))


def start(client, tool_id, **fields):
    return client.StartSandboxInstance(make(models.StartSandboxInstanceRequest, ToolId=tool_id, **fields)).Instance


def show(client, instance_id):
    request = make(models.DescribeSandboxInstanceListRequest, InstanceIds=[instance_id])
    return client.DescribeSandboxInstanceList(request).InstanceSet[0]


def code(call, *args):
    with pytest.raises(TencentCloudSDKException) as caught:
        call(*args)
    assert caught.value.requestId
    return caught.value.code


def test_tool_lifecycle(client):
    name = f"tool-{uuid.uuid4().hex[:12]}"
    probe = make(
        models.ProbeConfiguration,
        HttpGet=make(models.HttpGetAction, Path="/", Port=80, Scheme="HTTP"),
        ReadyTimeoutMs=30000,
    )
    custom = make(
        models.CustomConfiguration,
        Image="python:3.11",
        ImageRegistryType="enterprise",
        Env=[pair(models.EnvVar, "A", "值 b")],
        Resources=make(models.ResourceConfiguration, CPU="500m", Memory="1Gi"),
        Probe=probe,
    )
    request = tool_request(name, Description="说明", Tags=[pair(models.Tag, "team", "a")], CustomConfiguration=custom)
    tool_id = client.CreateSandboxTool(request).ToolId
    assert tool_id.startswith("tool" if GATEWAY else "sdt-")
    assert code(client.CreateSandboxTool, request) == "InvalidParameterValue.SandboxTool"

    listed = client.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, ToolIds=[tool_id]))
    assert listed.TotalCount == 1
    shown = listed.SandboxToolSet[0]
    assert (shown.ToolName, shown.Status, shown.Description) == (name, "ACTIVE", "说明")
    assert shown.CustomConfiguration.Env[0].Value == "值 b"
    assert shown.CustomConfiguration.Probe.HttpGet.Port == 80
    assert shown.DefaultTimeoutSeconds == 300

    client.UpdateSandboxTool(make(models.UpdateSandboxToolRequest, ToolId=tool_id, Description="new"))
    filters = [make(models.Filter, Name="ToolName", Values=[name]), make(models.Filter, Name="Status", Values=["ACTIVE", "FAILED"])]
    listed = client.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, Filters=filters))
    assert [t.Description for t in listed.SandboxToolSet] == ["new"]

    client.DeleteSandboxTool(make(models.DeleteSandboxToolRequest, ToolId=tool_id))
    delete = make(models.DeleteSandboxToolRequest, ToolId=tool_id)
    assert code(client.DeleteSandboxTool, delete) == "ResourceNotFound.SandboxTool"


def test_instance_lifecycle(client, tool):
    tool_id, name = tool
    instance = start(client, tool_id, Timeout="5m0s", Metadata=[pair(models.MetadataVar, "k", "值 v")])
    assert (instance.Status, instance.ToolName, instance.TimeoutSeconds) == ("RUNNING", name, 300)
    delete = make(models.DeleteSandboxToolRequest, ToolId=tool_id)
    assert code(client.DeleteSandboxTool, delete) == "ResourceInUse.SandboxTool"

    update = make(models.UpdateSandboxInstanceRequest, InstanceId=instance.InstanceId, Timeout="1h", Metadata=[pair(models.MetadataVar, "n", "w")])
    client.UpdateSandboxInstance(update)
    shown = show(client, instance.InstanceId)
    assert shown.TimeoutSeconds == 3600
    assert [(m.Name, m.Value) for m in shown.Metadata] == [("n", "w")]

    pause = make(models.PauseSandboxInstanceRequest, InstanceId=instance.InstanceId, Memory=True)
    assert client.PauseSandboxInstance(pause).InstanceStatus == "PAUSED"
    if not GATEWAY:  # which takes the change, and brings it to the cloud when it can
        assert code(client.UpdateSandboxInstance, update) == "UnsupportedOperation.SandboxInstance"
    client.ResumeSandboxInstance(make(models.ResumeSandboxInstanceRequest, InstanceId=instance.InstanceId, Timeout="90s"))
    assert show(client, instance.InstanceId).Status == "RUNNING"

    stop = make(models.StopSandboxInstanceRequest, InstanceId=instance.InstanceId)
    client.StopSandboxInstance(stop)
    shown = show(client, instance.InstanceId)
    assert (shown.Status, shown.StopReason) == ("STOPPED", "manual")
    assert code(client.StopSandboxInstance, stop) == "ResourceNotFound.SandboxInstance"


def test_lists_page_and_filter(client, tool):
    tool_id, _ = tool
    ids = [start(client, tool_id).InstanceId for _ in range(3)]
    page = make(models.DescribeSandboxInstanceListRequest, ToolId=tool_id, Offset=1, Limit=1)
    listed = client.DescribeSandboxInstanceList(page)
    assert (listed.TotalCount, [i.InstanceId for i in listed.InstanceSet]) == (3, [ids[1]])
    client.PauseSandboxInstance(make(models.PauseSandboxInstanceRequest, InstanceId=ids[0]))
    paused = [make(models.Filter, Name="Status", Values=["PAUSED"])]
    listed = client.DescribeSandboxInstanceList(make(models.DescribeSandboxInstanceListRequest, ToolId=tool_id, Filters=paused))
    assert [i.InstanceId for i in listed.InstanceSet] == [ids[0]]


def test_tokens(client, tool):
    instance = start(client, tool[0])
    token = client.AcquireSandboxInstanceToken(make(models.AcquireSandboxInstanceTokenRequest, InstanceId=instance.InstanceId))
    assert token.Token.startswith("agsa_" if GATEWAY else "sit_")
    assert GATEWAY or len(token.TrafficToken) == 64
    assert token.ExpiresAt.endswith("Z")


def test_get_requests(tool):
    client = connect(method="GET")
    filters = [make(models.Filter, Name="ToolName", Values=[tool[1], "other"])]
    listed = client.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, Filters=filters, Limit=5))
    assert [t.ToolId for t in listed.SandboxToolSet] == [tool[0]]


def test_unsigned_payload(tool):
    client = connect(unsigned=True)
    assert client.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, ToolIds=[tool[0]])).TotalCount == 1


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (connect(secret_key="wrong"), "AuthFailure.SignatureFailure"),
        (connect(secret_id="AKIDunknown"), "AuthFailure.SecretIdNotFound"),
    ],
)
def test_bad_credentials(client, expected):
    assert code(client.DescribeSandboxToolList, models.DescribeSandboxToolListRequest()) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "MissingParameter"),
        ({"ToolName": "no-such-tool"}, "ResourceNotFound.SandboxTool"),
        ({"ToolName": "base", "Timeout": "29s"}, "InvalidParameterValue.Timeout"),
        ({"ToolName": "base", "Timeout": 300}, "InvalidParameter"),
        ({"ToolName": "base", "MountOptions": [make(models.MountOption, Name="x")]}, "InvalidParameterValue.MountOption"),
    ],
)
def test_error_codes(client, fields, expected):
    assert code(client.StartSandboxInstance, make(models.StartSandboxInstanceRequest, **fields)) == expected


def test_more_than_a_hundred_ids(client):
    request = make(models.DescribeSandboxInstanceListRequest, InstanceIds=[f"i{n}" for n in range(101)])
    assert code(client.DescribeSandboxInstanceList, request) == "InvalidParameterValue.InstanceIds"


def test_client_token(client, tool, admin):
    first = start(client, tool[0], ClientToken=uuid.uuid4().hex)
    token = uuid.uuid4().hex
    request = make(models.StartSandboxInstanceRequest, ToolId=tool[0], ClientToken=token)
    one = client.StartSandboxInstance(request).Instance.InstanceId
    assert one != first.InstanceId
    assert client.StartSandboxInstance(request).Instance.InstanceId == one
    other = make(models.StartSandboxInstanceRequest, ToolId=tool[0], ClientToken=token, Timeout="1h")
    assert code(client.StartSandboxInstance, other) == "FailedOperation.DuplicateRequest"
    if not GATEWAY:
        admin.change(client_token="duplicate_request")
        assert code(client.StartSandboxInstance, request) == "FailedOperation.DuplicateRequest"


@cloud_only
def test_quota_and_throttling(client, tool, admin):
    live = admin.request("GET", "/state")["live_instances"]
    admin.change(max_instances=live + 1)
    start(client, tool[0])
    request = make(models.StartSandboxInstanceRequest, ToolId=tool[0])
    assert code(client.StartSandboxInstance, request) == "LimitExceeded.SandboxInstance"
    admin.add_fault({"match": {"action": "DescribeAPIKeyList"}, "kind": "throttle", "times": 1})
    assert code(client.DescribeAPIKeyList, models.DescribeAPIKeyListRequest()) == "RequestLimitExceeded"


def test_api_keys(client):
    made = client.CreateAPIKey(make(models.CreateAPIKeyRequest, Name="mine"))
    assert made.APIKey.startswith("e2b_" if GATEWAY else "ark_")
    listed = client.DescribeAPIKeyList(models.DescribeAPIKeyListRequest())
    shown = [key for key in listed.APIKeySet if key.KeyId == made.KeyId]
    assert [(key.Name, key.Status) for key in shown] == [("mine", "API_KEY_STATUS_ACTIVE")]
    assert made.APIKey not in shown[0].MaskedKey
    delete = make(models.DeleteAPIKeyRequest, KeyId=made.KeyId)
    client.DeleteAPIKey(delete)
    assert code(client.DeleteAPIKey, delete) == "ResourceNotFound"


def test_image_cache(client):
    create = make(models.CreatePreCacheImageTaskRequest, Image="python:3.11", ImageRegistryType="enterprise")
    if GATEWAY:  # only for administrators
        assert code(client.CreatePreCacheImageTask, create) == "UnauthorizedOperation"
        return
    made = client.CreatePreCacheImageTask(create)
    request = make(models.DescribePreCacheImageTaskRequest, Image=made.Image, ImageDigest=made.ImageDigest, ImageRegistryType=made.ImageRegistryType)
    assert client.DescribePreCacheImageTask(request).Status == "Success"
