"""docs/RECIPES.md: its shell is run, and each error of its table is provoked and must be as it stands there."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from conftest import GATEWAY, OVER_TLS, URL

if not GATEWAY or OVER_TLS:
    pytest.skip("about the gateway", allow_module_level=True)
# One generation of SDKs is enough: none of them is used.
pytest.importorskip("e2b_code_interpreter")

TEXT = (Path(__file__).parents[2] / "docs" / "RECIPES.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
ROWS = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) \| (\d+) `(\w+)`: (.+?) \| .+ \|$", TEXT, re.MULTILINE)}
KEY, ADMIN_KEY = os.environ["AGS_GATEWAY_KEY"], os.environ["AGS_GATEWAY_ADMIN_KEY"]
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ENVD = {"name": "envd", "mount_path": "/nix", "source": {"image": {"reference": "ccr.example.com/tools/envd:latest"}}}
COS = {"name": "data", "mount_path": "/data", "source": {"cos": {"bucket_name": "data-1250000000", "bucket_path": "/x"}}}


def call(method, path, body=None, key=KEY, **headers):
    """Status and what was said."""
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{URL}/v1/{path}", body and json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return response.status, json.loads(response.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def done(*request, **more):
    status, said = call(*request, **more)
    assert status < 300, said
    return said


class Stage:
    """What errors are provoked with; all of it is gone afterwards."""

    def __init__(self, admin):
        self.admin, self.made = admin, []

    def keep(self, kind, made):
        self.made.append(f"{kind}/{made['id']}")
        return made

    def tool_of(self, **spec):
        """The answer, whatever it is."""
        name = f"recipe-{uuid.uuid4().hex[:8]}"
        answer = call("POST", "tools?wait=20s", {"name": name, "type": "custom"} | spec)
        self.made += [f"tools/{tool['id']}" for tool in done("GET", f"tools?name={name}")["items"]]
        return name, answer

    def tool(self, **spec):
        name, (status, said) = self.tool_of(**spec)
        assert status == 201, said
        return name

    def refused_tool(self, **spec):
        return self.tool_of(**spec)[1]

    def start(self, tool, **more):
        return call("POST", "instances?wait=20s", {"tool": tool, "timeout": "5m"}, **more)

    def instance(self, tool=None):
        status, said = self.start(tool or self.tool())
        assert status == 201, said
        return "instances/" + self.keep("instances", said)["id"]

    def fault(self, action, kind, **more):
        self.admin.add_fault({"match": {"action": action}, "kind": kind, "times": 20} | more)

    def team(self, **limits):
        """A key of a team that was granted nothing."""
        name = f"recipe-{uuid.uuid4().hex[:8]}"
        done("POST", "teams", {"name": name, "quotas": limits} if limits else {"name": name}, key=ADMIN_KEY)
        scopes = ["tools:read", "tools:write", "instances:read", "instances:write"]
        return self.minted(scopes, key=ADMIN_KEY, team=name)

    def minted(self, scopes, key=KEY, **more):
        made = done("POST", "keys", {"name": "recipe", "scopes": scopes} | more, key=key)
        self.made.append(f"keys/{made['id']}")
        return made["secret"]

    def clear(self):
        for path in reversed(self.made):
            call("DELETE", path, key=ADMIN_KEY if path.startswith("keys") else KEY)


@pytest.fixture
def stage(admin):
    stage = Stage(admin)
    yield stage
    admin.request("DELETE", "/faults")
    stage.clear()


def refused_start(stage, code):
    tool = stage.tool()
    stage.fault("StartSandboxInstance", "error", code=code, message="")
    return stage.start(tool)


def full_account(stage):
    """The gateway remembers what the cloud said until one ends and it takes another: no other test shall meet that."""
    running = stage.instance()
    answer = refused_start(stage, "LimitExceeded.SandboxInstance")
    stage.admin.request("DELETE", "/faults")
    done("DELETE", running)
    tool = stage.tool()
    stage.keep("instances", done("POST", "instances?queue=1m&wait=20s", {"tool": tool}))
    return answer


def failed_tool(stage):
    stage.fault("CreateSandboxTool", "fail_tool", reason="manifest unknown")
    name, answer = stage.tool_of()
    return name, answer


def full_team(stage):
    key = stage.team(max_instances=1, max_lifetime_seconds=3600, max_execs=10, requests_per_second=100)
    tool = done("POST", "tools?wait=20s", {"name": "recipe", "type": "custom"}, key=key)
    instance = done("POST", "instances?wait=20s", {"tool": "recipe"}, key=key)
    try:
        return call("POST", "instances", {"tool": "recipe"}, key=key)
    finally:
        done("DELETE", f"instances/{instance['id']}", key=key)
        done("DELETE", f"tools/{tool['id']}", key=key)


def no_such_program(stage):
    tool = stage.tool(command=["/nix/bin/absent"], probe={"path": "/", "port": 8000, "ready_timeout_ms": 1000})
    return stage.start(tool)


def after(stage, action, method="POST"):
    instance = stage.instance()
    done(method, instance + action)
    return call("POST", f"{instance}/exec", {"cmd": "true"})


def gone_output(stage):
    instance = stage.instance()
    flood = done("POST", f"{instance}/exec", {"cmd": "head -c 40000000 /dev/zero | tr '\\0' x; echo", "background": True})
    path = f"{instance}/execs/{flood['id']}"
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "application/x-ndjson"}
    following = urllib.request.Request(f"{URL}/v1/{path}/output?follow=true", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(following, timeout=60) as events:
        cursors = [json.loads(line).get("cursor") for line in events]
    return call("GET", f"{path}/output?after={cursors[0]}")


def tool_in_use(stage):
    tool = stage.tool()
    stage.instance(tool)
    [found] = done("GET", f"tools?name={tool}")["items"]
    return call("DELETE", f"tools/{found['id']}")


PROVOKED = {
    "The key is wrong": lambda stage: call("GET", "me", key=f"agsk_{'0' * 64}"),
    "The key may not do this": lambda stage: stage.start("any", key=stage.minted(["tools:read"])),
    "A role, a mount, a network or an auth mode is refused": lambda stage: call(
        "POST", "tools", {"name": "recipe", "type": "custom", "storage_mounts": [ENVD]}, key=stage.team()
    ),
    "A COS mount without a role": lambda stage: stage.refused_tool(storage_mounts=[COS]),
    "`mount_envd` on a gateway without one": lambda stage: stage.refused_tool(mount_envd=True),
    "The tool is FAILED: the image cannot be pulled, a mount does not work": lambda stage: failed_tool(stage)[1],
    "An instance of a tool that is not ACTIVE": lambda stage: stage.start(failed_tool(stage)[0]),
    "The tool is not found": lambda stage: stage.start("absent"),
    "The instance does not start: image, probe, resources": no_such_program,
    "Mounting fails when the instance starts": lambda stage: refused_start(stage, "FailedOperation.StorageMount"),
    "The team's quota is full": full_team,
    "The account's quota is full": full_account,
    "The cloud refuses the gateway": lambda stage: refused_start(stage, "AuthFailure.UnauthorizedOperation"),
    "The account calls too often": lambda stage: refused_start(stage, "RequestLimitExceeded"),
    "A timeout is refused": lambda stage: call("POST", "instances", {"timeout": "10s"}),
    "The instance is over": lambda stage: after(stage, "", method="DELETE"),
    "The instance is paused": lambda stage: after(stage, "/pause"),
    "Code in a tool without an interpreter": lambda stage: call("POST", f"{stage.instance()}/code", {"code": "1"}),
    "A port does not answer": lambda stage: call("GET", f"{stage.instance()}/ports/8000/"),
    "A file is not there": lambda stage: call("GET", f"{stage.instance()}/files?path=nope"),
    "A command's directory is not there": lambda stage: call("POST", f"{stage.instance()}/exec", {"cmd": "true", "cwd": "/nope"}),
    "A page cannot open a WebSocket": lambda stage: call(
        "GET", f"{stage.instance()}/exec/ws", **HANDSHAKE, Origin="https://page.example.com"
    ),
    "A ticket is refused": lambda stage: call(
        "GET", f"{stage.instance()}/exec/ws", key=None, **HANDSHAKE | {"Sec-WebSocket-Protocol": "ags.exec.v1, ticket.used"}
    ),
    "Output is gone": gone_output,
    "A tool cannot be deleted": tool_in_use,
    "A field is refused": lambda stage: call("POST", "tools", {"name": "recipe", "type": "custom", "imag": "x"}),
}


def test_every_row_is_provoked():
    assert sorted(ROWS) == sorted(PROVOKED)
    assert TEXT.count("\n| ") == len(ROWS) + 1


@pytest.mark.parametrize("symptom", PROVOKED)
def test_the_error_of(stage, symptom):
    wanted_status, wanted_code, wanted_detail = ROWS[symptom]
    status, said = PROVOKED[symptom](stage)
    assert (str(status), said.get("code")) == (wanted_status, wanted_code), said
    pattern = ".*".join(re.escape(piece) for piece in wanted_detail.split("…"))
    assert re.fullmatch(pattern, said["detail"]), said["detail"]


def run_blocks():
    script = "set -euo pipefail\n" + "".join(BLOCKS)
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, env=os.environ)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def clear_blocks():
    for name in re.findall(r'"name": "([\w-]+)", "type"', TEXT):
        for tool in done("GET", f"tools?name={name}")["items"]:
            for instance in done("GET", f"instances?tool={tool['id']}&status=STARTING,RUNNING")["items"]:
                done("DELETE", f"instances/{instance['id']}")
            done("DELETE", f"tools/{tool['id']}")


def test_the_shell_blocks():
    try:
        said = run_blocks()
        settled = [one["status"] for one in said if "status" in one]
        assert settled == ["ACTIVE", "ACTIVE", "RUNNING", "ACTIVE", "RUNNING", "done", "ACTIVE"]
        [run] = [one for one in said if one.get("status") == "done"]
        assert run["exit_code"] == 0 and "test_sum" in run["files"][0]["content"]
        [listed] = [one["items"] for one in said if "items" in one]
        assert [instance["metadata"] for instance in listed] == [{"task": "astropy__astropy-12907"}]
    finally:
        clear_blocks()
