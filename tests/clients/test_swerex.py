"""swe-rex, unmodified, in a sandbox that was started with Tencent's SDK and is reached on its port's own host."""

import asyncio
import io
import json
import os
import socket
import tarfile
import urllib.request
import uuid
from datetime import datetime, timezone
from pathlib import Path

import pytest

swerex = pytest.importorskip("swerex")

from swerex.deployment.abstract import AbstractDeployment
from swerex.runtime.abstract import BashAction, CloseBashSessionRequest, CreateBashSessionRequest, ReadFileRequest, UploadRequest
from swerex.runtime.remote import RemoteRuntime
from tencentcloud.ags.v20250920 import ags_client, models
from tencentcloud.common import credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

from conftest import AUTHORITIES, GATEWAY, URL

if not GATEWAY:
    pytest.skip("shown through the gateway", allow_module_level=True)

PORT = 8000
SCHEME, _, ADDRESS = URL.partition("://")
DOMAIN = os.environ.get("AGS_GATEWAY_SANDBOX_DOMAIN") or f"localhost:{ADDRESS.rpartition(':')[2]}"
PACKAGES = "/tmp/packages"
RENEW_BELOW = 60


class Runtime(RemoteRuntime):
    """Adds the sandbox's token, renewed before it ends, to swe-rex's own key."""

    def __init__(self, token, **config):
        super().__init__(**config)
        self._token = token

    @property
    def _headers(self):
        return {**super()._headers, "X-Access-Token": self._token()}


class Deployment(AbstractDeployment):
    """As one would deploy on AGS: the tool is ACTIVE, an instance with an image of its own, a token, until it is alive."""

    def __init__(self, client, tool, serve):
        self.client, self.tool, self.serve = client, tool, serve
        self.auth_token, self.instance, self.token, self._runtime = uuid.uuid4().hex, None, None, None

    def add_hook(self, hook):
        raise NotImplementedError

    def acquire(self):
        ends = self.token and datetime.fromisoformat(self.token.ExpiresAt)
        if not ends or (ends - datetime.now(timezone.utc)).total_seconds() < RENEW_BELOW:
            self.token = self.client.AcquireSandboxInstanceToken(make(models.AcquireSandboxInstanceTokenRequest, InstanceId=self.instance))
        return self.token.Token

    @property
    def runtime(self):
        return self._runtime

    async def is_alive(self, *, timeout=None):
        return await self.runtime.is_alive(timeout=timeout)

    async def start(self):
        found = self.client.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, ToolIds=[self.tool]))
        assert [tool.Status for tool in found.SandboxToolSet] == ["ACTIVE"]
        custom = make(models.CustomConfiguration, Image="python:3.12", ImageRegistryType="enterprise")
        request = make(models.StartSandboxInstanceRequest, ToolId=self.tool, Timeout="10m", ClientToken=uuid.uuid4().hex, CustomConfiguration=custom)
        self.instance = self.client.StartSandboxInstance(request).Instance.InstanceId
        # In the cloud the image's own command does this.
        self.serve(self.instance, self.auth_token)
        host = f"{SCHEME}://{PORT}-{self.instance}.{DOMAIN}"
        self._runtime = Runtime(self.acquire, auth_token=self.auth_token, host=host, port=None)
        await self._runtime.wait_until_alive(timeout=60)

    async def stop(self):
        await self._runtime.close()
        self.client.StopSandboxInstance(make(models.StopSandboxInstanceRequest, InstanceId=self.instance))


def make(request_type, **fields):
    request = request_type()
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def gateway(method, path, body, kind="application/json"):
    headers = {"Authorization": f"Bearer {os.environ['AGS_GATEWAY_KEY']}", "Content-Type": kind}
    request = urllib.request.Request(f"{URL}/v1/instances/{path}", body, headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return json.loads(response.read() or "null")


def packages():
    """What the server needs, as a tar: the sandbox does not see where it is installed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for entry in Path(swerex.__file__).parent.parent.iterdir():
            if not entry.name.startswith(("pip", "setuptools", "tencentcloud", "__pycache__")):
                tar.add(entry, entry.name)
    return packed.getvalue()


def serve(instance, auth_token):
    """Starts the package's own server in the instance."""
    gateway("PUT", f"{instance}/archive?path={PACKAGES}", packages(), "application/x-tar")
    command = ["python3", "-m", "swerex.server", "--port", str(PORT), "--auth-token", auth_token]
    spec = {"cmd": command, "env": {"PYTHONPATH": PACKAGES}, "background": True}
    gateway("POST", f"{instance}/exec", json.dumps(spec).encode())


@pytest.fixture
def client():
    http = HttpProfile(protocol=SCHEME, endpoint=ADDRESS, reqTimeout=60, certification=AUTHORITIES)
    pair = credential.Credential(os.environ["AGS_GATEWAY_SECRET_ID"], os.environ["AGS_GATEWAY_SECRET_KEY"])
    return ags_client.AgsClient(pair, "ap-guangzhou", ClientProfile(httpProfile=http))


@pytest.fixture
def tool(client):
    network = make(models.NetworkConfiguration, NetworkMode="PUBLIC")
    request = make(models.CreateSandboxToolRequest, ToolName=f"swe-{uuid.uuid4().hex[:8]}", ToolType="custom", NetworkConfiguration=network)
    tool = client.CreateSandboxTool(request).ToolId
    yield tool
    client.DeleteSandboxTool(make(models.DeleteSandboxToolRequest, ToolId=tool))


@pytest.fixture(autouse=True)
def localhost(monkeypatch):
    """Names below localhost are this machine (RFC 6761, 6.3), whatever its resolver says."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if name and name.endswith(".localhost") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_session_in_a_sandbox(client, tool, tmp_path):
    async def walk():
        deployment = Deployment(client, tool, serve)
        await deployment.start()
        try:
            runtime = deployment.runtime
            await runtime.create_session(CreateBashSessionRequest())
            said = await runtime.run_in_session(BashAction(command="cd /tmp && export A=1; echo $((40 + 2)) $A"))
            assert (said.output.strip(), said.exit_code) == ("42 1", 0)
            said = await runtime.run_in_session(BashAction(command="pwd; echo $A"))
            assert said.output.split() == ["/tmp", "1"]
            (tmp_path / "up.txt").write_text("héllo\n")
            await runtime.upload(UploadRequest(source_path=str(tmp_path / "up.txt"), target_path="/tmp/up.txt"))
            assert (await runtime.read_file(ReadFileRequest(path="/tmp/up.txt"))).content == "héllo\n"
            await runtime.close_session(CloseBashSessionRequest())
        finally:
            await deployment.stop()
        shown = client.DescribeSandboxInstanceList(make(models.DescribeSandboxInstanceListRequest, InstanceIds=[deployment.instance]))
        assert shown.InstanceSet[0].Status == "STOPPED"
        assert not (await deployment.runtime.is_alive(timeout=5)).is_alive

    asyncio.run(walk())
