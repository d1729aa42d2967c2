"""What only the gateway has of E2B's: signed addresses of files, and errors of its own; and all of it in the async SDK."""

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
import uuid

import pytest

from conftest import GATEWAY, URL, run, timed_out

if not GATEWAY:
    pytest.skip("about the gateway", allow_module_level=True)
pytest.importorskip("e2b")

from e2b import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    NotFoundException,
    Sandbox,
    SandboxException,
    SandboxQuery,
    SandboxState,
)
from e2b.exceptions import RateLimitException


def fetch(url, data=None, key=None, method=None, **headers):
    if key:
        headers |= {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def sandbox():
    sandbox = Sandbox.create("base", timeout=60)
    yield sandbox
    sandbox.kill()


def test_signed_download_url(sandbox):
    sandbox.files.write("dir one/ä+.txt", "text ü\n")
    content = (200, "text ü\n".encode())
    assert fetch(sandbox.download_url("dir one/ä+.txt")) == content
    url = sandbox.download_url("dir one/ä+.txt", use_signature_expiration=600)
    assert fetch(url) == content
    assert fetch(url.replace("signature=v1_", "signature=v1_x"))[0] == 401
    expired = sandbox.download_url("dir one/ä+.txt", use_signature_expiration=-5)
    status, body = fetch(expired)
    assert (status, json.loads(body)) == (401, {"code": 401, "message": "signature is already expired"})


def test_signed_upload_url(sandbox):
    boundary = uuid.uuid4().hex
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nsigned\r\n--{boundary}--\r\n'
    url = sandbox.upload_url("up/loaded.txt", use_signature_expiration=600)
    status, _ = fetch(url, part.encode(), **{"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert status == 200
    assert sandbox.files.read("up/loaded.txt") == "signed"
    assert fetch(url)[0] == 401


def test_authentication_exception():
    for key in ["e2b_" + "0" * 64, "e2b_12"]:
        with pytest.raises(AuthenticationException, match="401"):
            Sandbox.create("base", api_key=key)


def test_not_found_exception(sandbox):
    sandbox.kill()
    for call in [sandbox.get_info, lambda: sandbox.set_timeout(60)]:
        with pytest.raises(NotFoundException):
            call()


def test_template_that_is_not_there():
    with pytest.raises(SandboxException, match="absent"):
        Sandbox.create("absent")


def test_what_agent_sandbox_cannot_do(sandbox):
    with pytest.raises(SandboxException, match="501"):
        sandbox.create_snapshot() if hasattr(sandbox, "create_snapshot") else Sandbox.beta_create("base", auto_pause=True)


def test_rate_limit_exception():
    admin = os.environ["AGS_GATEWAY_ADMIN_KEY"]
    team = json.loads(fetch(URL + "/v1/me", key=admin)[1])["team"]["id"]

    def quota(instances):
        body = json.dumps({"quotas": {"max_instances": instances}}).encode()
        assert fetch(f"{URL}/v1/teams/{team}", body, key=admin, method="PATCH")[0] == 200

    quota(0)
    try:
        with pytest.raises(RateLimitException):
            Sandbox.create("base", request_timeout=10)
    finally:
        quota(100)


def test_short_timeout_ends_it():
    sandbox = Sandbox.create("base", timeout=2)
    deadline = time.monotonic() + 20
    while sandbox.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(NotFoundException):
        sandbox.get_info()


def test_async_sandbox():
    async def use():
        mark = uuid.uuid4().hex
        sandbox = await AsyncSandbox.create("base", timeout=60, metadata={"mark": mark}, envs={"A": "b"})
        try:
            assert await sandbox.is_running()
            assert (await sandbox.get_info()).metadata == {"mark": mark}
            result = await sandbox.commands.run("echo out; echo err >&2; echo $A")
            assert (result.stdout, result.stderr) == ("out\nb\n", "err\n")
            with pytest.raises(CommandExitException):
                await sandbox.commands.run("exit 3")
            with pytest.raises(timed_out()):
                await sandbox.commands.run("sleep 10", timeout=1)
            await sandbox.files.write("a/b.txt", "content")
            assert await sandbox.files.read("a/b.txt") == "content"
            assert [entry.name for entry in await sandbox.files.list("a")] == ["b.txt"]
            await sandbox.set_timeout(120)
            await getattr(sandbox, "pause", sandbox.beta_pause)()
            assert not await sandbox.is_running()
            paused = await AsyncSandbox.list(query=SandboxQuery(metadata={"mark": mark}, state=[SandboxState.PAUSED])).next_items()
            assert [info.sandbox_id for info in paused] == [sandbox.sandbox_id]
            again = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=60)
            assert await again.files.read("a/b.txt") == "content"
            assert await sandbox.get_metrics()
        finally:
            assert await sandbox.kill()
        assert not await sandbox.kill()

    run(use())


def test_async_background_command():
    async def use():
        sandbox = await AsyncSandbox.create("base", timeout=60)
        try:
            out = []
            cat = await sandbox.commands.run("cat", background=True, stdin=True, on_stdout=out.append)
            await sandbox.commands.send_stdin(cat.pid, "hello\n")
            for _ in range(250):
                if out:
                    break
                await asyncio.sleep(0.02)
            assert "".join(out) == "hello\n"
            assert cat.pid in [process.pid for process in await sandbox.commands.list()]
            assert await cat.kill()
        finally:
            await sandbox.kill()

    run(use())


def test_terminal(sandbox):
    from e2b import PtySize

    terminal = sandbox.pty.create(PtySize(rows=24, cols=80))
    sandbox.pty.resize(terminal.pid, PtySize(rows=33, cols=101))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    seen = b""
    for _, _, data in terminal:
        seen += data or b""
    assert b"33 101" in seen
