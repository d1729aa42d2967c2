"""Every step of a sandbox's life with the official SDKs, against the gateway: Tencent Cloud's for tools and instances, E2B's inside.

    . .ags-gateway/dev.env        # or set AGS_GATEWAY_URL, AGS_GATEWAY_KEY, AGS_GATEWAY_SECRET_ID and AGS_GATEWAY_SECRET_KEY
    pip install tencentcloud-sdk-python-ags e2b
    python examples/sdk_story.py
"""

import os
import time
import uuid

GATEWAY = os.environ["AGS_GATEWAY_URL"]
# What the E2B SDK reads, before it is imported. The same key, behind the prefix that it insists on.
os.environ["E2B_API_URL"] = f"{GATEWAY}/e2b"
os.environ["E2B_SANDBOX_URL"] = GATEWAY
os.environ["E2B_API_KEY"] = "e2b_" + os.environ["AGS_GATEWAY_KEY"].removeprefix("agsk_")

from e2b import Sandbox
from tencentcloud.ags.v20250920 import ags_client, models
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile


def make(kind, **fields):
    """A request or an object of the SDK with these fields."""
    made = kind()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def connect():
    scheme, _, endpoint = GATEWAY.partition("://")
    pair = credential.Credential(os.environ["AGS_GATEWAY_SECRET_ID"], os.environ["AGS_GATEWAY_SECRET_KEY"])
    profile = ClientProfile(httpProfile=HttpProfile(protocol=scheme, endpoint=endpoint))
    # The region is the gateway's business; the SDK wants one.
    return ags_client.AgsClient(pair, "ap-guangzhou", profile)


def create_tool(ags, name):
    request = make(
        models.CreateSandboxToolRequest,
        ToolName=name,
        ToolType="custom",
        Description="made by an example",
        DefaultTimeout="10m",
        NetworkConfiguration=make(models.NetworkConfiguration, NetworkMode="PUBLIC"),
        CustomConfiguration=make(models.CustomConfiguration, Image="python:3.11", ImageRegistryType="enterprise"),
    )
    tool = ags.CreateSandboxTool(request).ToolId
    while True:
        found = ags.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, ToolIds=[tool])).SandboxToolSet[0]
        if found.Status != "CREATING":
            break
        time.sleep(0.5)
    assert found.Status == "ACTIVE", found.StatusReason
    print("tool", tool, found.Status)
    return tool


def start(ags, tool):
    metadata = [make(models.MetadataVar, Name="example", Value="sdk_story")]
    request = make(models.StartSandboxInstanceRequest, ToolId=tool, Timeout="10m", Metadata=metadata, ClientToken=uuid.uuid4().hex)
    instance = ags.StartSandboxInstance(request).Instance
    token = ags.AcquireSandboxInstanceToken(make(models.AcquireSandboxInstanceTokenRequest, InstanceId=instance.InstanceId))
    print("instance", instance.InstanceId, instance.Status, "until", instance.ExpiresAt, "token until", token.ExpiresAt)
    return instance.InstanceId


def work(instance):
    """Inside: a command, one in the background with callbacks, files up and down."""
    sandbox = Sandbox.connect(instance)
    print("command:", sandbox.commands.run("echo $((40 + 2))").stdout.strip())
    heard = []
    running = sandbox.commands.run("for i in 1 2 3; do echo line $i; sleep 0.1; done", background=True)
    running.wait(on_stdout=lambda text: heard.extend(text.split("\n")))
    print("background:", [line for line in heard if line])
    sandbox.files.write("/tmp/hello.txt", "hello from outside\n")
    sandbox.commands.run("tr a-z A-Z < /tmp/hello.txt > /tmp/answer.txt")
    print("file:", sandbox.files.read("/tmp/answer.txt").strip())


def list_running(ags, tool):
    running = [make(models.Filter, Name="Status", Values=["RUNNING"])]
    found = ags.DescribeSandboxInstanceList(make(models.DescribeSandboxInstanceListRequest, ToolId=tool, Filters=running))
    return [one.InstanceId for one in found.InstanceSet]


def main():
    ags = connect()
    tool = create_tool(ags, f"story-{uuid.uuid4().hex[:8]}")
    try:
        instance = start(ags, tool)
        try:
            work(instance)
            assert list_running(ags, tool) == [instance]
        finally:
            ags.StopSandboxInstance(make(models.StopSandboxInstanceRequest, InstanceId=instance))
        assert list_running(ags, tool) == []
        print("stopped")
    finally:
        ags.DeleteSandboxTool(make(models.DeleteSandboxToolRequest, ToolId=tool))
    print("deleted")


if __name__ == "__main__":
    main()
