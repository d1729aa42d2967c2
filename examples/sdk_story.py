"""Every step of a sandbox's life with the official SDKs: Tencent Cloud's for tools and instances, E2B's inside.

    set -a; . .ags-gateway/dev.env; set +a    # or set AGS_GATEWAY_URL, _KEY, _SECRET_ID and _SECRET_KEY
    pip install tencentcloud-sdk-python-ags e2b-code-interpreter
    python examples/sdk_story.py
"""

import json
import os
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

GATEWAY = os.environ["AGS_GATEWAY_URL"]
# What the E2B SDK reads, before it is imported. The same key, behind the prefix that it insists on.
os.environ["E2B_API_URL"] = f"{GATEWAY}/e2b"
os.environ["E2B_SANDBOX_URL"] = GATEWAY
os.environ["E2B_API_KEY"] = "e2b_" + os.environ["AGS_GATEWAY_KEY"].removeprefix("agsk_")

from e2b_code_interpreter import Sandbox
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
    profile = ClientProfile(httpProfile=HttpProfile(protocol=scheme, endpoint=endpoint, certification=os.environ.get("SSL_CERT_FILE")))
    # The region is the gateway's business; the SDK wants one.
    return ags_client.AgsClient(pair, "ap-guangzhou", profile)


def create_tool(ags, name):
    # A `custom` tool takes an image (CustomConfiguration); this type brings one that runs code.
    request = make(
        models.CreateSandboxToolRequest,
        ToolName=name,
        ToolType="code-interpreter",
        Description="made by an example",
        DefaultTimeout="10m",
        NetworkConfiguration=make(models.NetworkConfiguration, NetworkMode="PUBLIC"),
        Tags=[make(models.Tag, Key="example", Value="sdk_story")],
        ClientToken=uuid.uuid4().hex,
    )
    return ags.CreateSandboxTool(request).ToolId


def wait_until_active(ags, tool):
    while True:
        found = ags.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, ToolIds=[tool])).SandboxToolSet[0]
        if found.Status != "CREATING":
            break
        time.sleep(0.5)
    assert found.Status == "ACTIVE", found.StatusReason
    print("tool:", tool, found.ToolName, found.Status)


def start(ags, tool):
    metadata = [make(models.MetadataVar, Name="example", Value="sdk_story")]
    # The token makes a repetition safe: the same instance is answered, not a second one started.
    once = uuid.uuid4().hex
    request = make(models.StartSandboxInstanceRequest, ToolId=tool, Timeout="10m", Metadata=metadata, ClientToken=once)
    instance = ags.StartSandboxInstance(request).Instance
    print("instance:", instance.InstanceId, instance.Status, "until", instance.ExpiresAt)
    return instance.InstanceId


def acquire_token(ags, instance):
    token = ags.AcquireSandboxInstanceToken(make(models.AcquireSandboxInstanceTokenRequest, InstanceId=instance))
    print("token: until", token.ExpiresAt)
    return token.Token


def run_commands(sandbox):
    """One that is waited for, and one in the background with callbacks."""
    print("command:", sandbox.commands.run("echo $((40 + 2))").stdout.strip())
    heard = []
    running = sandbox.commands.run("for i in 1 2 3; do echo line $i; sleep 0.1; done; echo done >&2", background=True)
    running.wait(on_stdout=heard.append, on_stderr=lambda text: print("stderr:", text.strip()))
    print("background:", "".join(heard).split("\n")[:-1])


def run_code(sandbox):
    """Variables last from run to run; the value of the last line is the result."""
    sandbox.run_code("numbers = [1, 2, 3]")
    said = lambda message: print("code says:", message.line.strip())
    execution = sandbox.run_code("print('adding'); sum(numbers)", on_stdout=said)
    print("code:", execution.text)
    print("code fails:", sandbox.run_code("1 / 0").error.name)


def move_files(sandbox):
    """One up, as it lies here, and what became of it down again."""
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory, "hello.txt")
        here.write_text("hello from outside\n")
        with here.open("rb") as content:
            sandbox.files.write("/tmp/hello.txt", content)
        sandbox.commands.run("tr a-z A-Z < /tmp/hello.txt > /tmp/answer.txt")
        here.write_bytes(sandbox.files.read("/tmp/answer.txt", format="bytes"))
        print("file:", here.read_text().strip())
    print("files:", sorted(entry.name for entry in sandbox.files.list("/tmp") if entry.name.endswith(".txt")))


def open_url(sandbox, instance, token):
    """The address of a port, and the page that a server in the sandbox has there."""
    key = {"Authorization": f"Bearer {os.environ['AGS_GATEWAY_KEY']}"}
    address = json.loads(fetch(f"{GATEWAY}/v1/instances/{instance}/url?port=8000", key))
    server = sandbox.commands.run("cd /tmp && exec python3 -um http.server 8000 2>&1", background=True)
    next(iter(server))  # It has said that it serves.
    if address["host_url"]:
        print("url:", address["host_url"])
        # Names below localhost are not known to every resolver: the host is said in the header.
        host = urllib.request.urlsplit(address["host_url"]).netloc
        page = fetch(f"{GATEWAY}/answer.txt", {"Host": host, "X-Access-Token": token})
    else:
        print("url:", address["url"])
        page = fetch(f"{address['url']}answer.txt", key)
    print("page:", page.decode().strip())
    server.kill()


def fetch(url, headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read()


def list_running(ags, tool):
    running = [make(models.Filter, Name="Status", Values=["RUNNING"])]
    found = ags.DescribeSandboxInstanceList(make(models.DescribeSandboxInstanceListRequest, ToolId=tool, Filters=running))
    return [one.InstanceId for one in found.InstanceSet]


def list_tools(ags, name):
    wanted = {"ToolName": name, "ToolType": "code-interpreter"}
    filters = [make(models.Filter, Name=field, Values=[value]) for field, value in wanted.items()]
    found = ags.DescribeSandboxToolList(make(models.DescribeSandboxToolListRequest, Filters=filters))
    return [one.ToolId for one in found.SandboxToolSet]


def use(ags, instance):
    token = acquire_token(ags, instance)
    sandbox = Sandbox.connect(instance)
    run_commands(sandbox)
    run_code(sandbox)
    move_files(sandbox)
    open_url(sandbox, instance, token)


def main():
    ags = connect()
    name = f"story-{uuid.uuid4().hex[:8]}"
    tool = create_tool(ags, name)
    try:
        wait_until_active(ags, tool)
        assert list_tools(ags, name) == [tool]
        instance = start(ags, tool)
        try:
            use(ags, instance)
            print("running:", list_running(ags, tool))
        finally:
            ags.StopSandboxInstance(make(models.StopSandboxInstanceRequest, InstanceId=instance))
        assert list_running(ags, tool) == []
        print("stopped")
    finally:
        ags.DeleteSandboxTool(make(models.DeleteSandboxToolRequest, ToolId=tool))
    assert list_tools(ags, name) == []
    print("deleted")


if __name__ == "__main__":
    main()
