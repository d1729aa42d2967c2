"""The examples, run as their readers run them."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import GATEWAY, OVER_TLS, URL

if not GATEWAY:
    pytest.skip("about the gateway", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def says(said, *lines):
    for line in lines:
        assert line in said.splitlines(), said


@pytest.fixture
def newest():
    """One generation of SDKs is enough for what uses none of Python's."""
    pytest.importorskip("e2b_code_interpreter")


@pytest.fixture
def beside_modules(newest, tmp_path):
    """A directory in which an example in JavaScript finds the SDK."""
    modules = os.environ.get("AGS_CLIENTS_MODULES")
    if not modules:
        pytest.skip("npm is not installed")
    (tmp_path / "node_modules").symlink_to(Path(modules, "node_modules"))
    return tmp_path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def page(newest):
    """The address of the page, served from an origin of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=EXAMPLES)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/browser.html"
        server.shutdown()


def test_the_sdks_story(newest):
    said = run(sys.executable, str(EXAMPLES / "sdk_story.py"))
    says(said, "command: 42", "stderr: done", "background: ['line 1', 'line 2', 'line 3']")
    says(said, "code says: adding", "code: 6", "code fails: ZeroDivisionError")
    says(said, "file: HELLO FROM OUTSIDE", "page: HELLO FROM OUTSIDE", "stopped", "deleted")


def test_the_story_in_javascript(beside_modules):
    story = shutil.copy(EXAMPLES / "sdk-story.mjs", beside_modules)
    said = run("node", story)
    says(said, "command: 42", "stderr: done", "background: [ 'line 1', 'line 2', 'line 3' ]")
    says(said, "code says: adding", "code: 6", "code fails: ZeroDivisionError")
    says(said, "file: HELLO FROM OUTSIDE", "page: HELLO FROM OUTSIDE", "killed: STOPPED manual", "deleted")


def test_the_story_in_curl(newest):
    said = run(str(EXAMPLES / "story.sh"))
    for text in ["line 3", "begun", "done", "adding", "hello", "/ports/8000/"]:
        assert text in said, said
    assert said.splitlines()[-1].startswith("ins")


@pytest.mark.skipif(OVER_TLS, reason="Chromium keeps authorities of its own")
@pytest.mark.parametrize("scenario", ["story", "refusals", "stoppedElsewhere"])
def test_the_page_in_a_browser(page, scenario, tmp_path):
    chromium, modules = shutil.which("chromium"), os.environ.get("AGS_CLIENTS_BROWSER")
    if not chromium or not modules:
        pytest.skip("chromium or npm is not installed")
    driver = shutil.copy(Path(__file__).parent / "browser" / "drive.mjs", modules)
    run("node", driver, chromium, scenario, page, str(tmp_path))


def api(path):
    key = {"Authorization": f"Bearer {os.environ['AGS_GATEWAY_KEY']}"}
    request = urllib.request.Request(f"{URL}/v1/{path}", headers=key)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return json.loads(response.read())


def busy_instances(count):
    """Those of SWE-bench that run a durable command, once there are so many."""
    is_busy = lambda id: any(exec["background"] and exec["status"] == "running" for exec in api(f"instances/{id}/execs")["items"])
    running = api("instances?status=RUNNING&metadata.benchmark=swe-bench")["items"]
    busy = [instance["id"] for instance in running if is_busy(instance["id"])]
    return busy if len(busy) >= count else None


def eventually(look):
    deadline = time.monotonic() + 60
    while (seen := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return seen


def at_once(instances):
    """The most that were there together."""
    lives = [(instance["created_at"], instance["stopped_at"]) for instance in instances]
    return max(sum(begun <= moment < ended for begun, ended in lives) for moment, _ in lives)


@pytest.mark.skipif(OVER_TLS, reason="run over plain HTTP")
@pytest.mark.parametrize("how", [[], ["--as-runs"]], ids=["instances", "runs"])
def test_the_walk_through_swebench(newest, how):
    walk = str(EXAMPLES / "swebench" / "walkthrough.py")
    told = run(sys.executable, walk, "--parallel", "2", "--command", "exec sleep 1000", *how)
    said = json.loads(told)
    assert said["resolved"] == ["example__calc-1", "example__text-2"], told
    assert said["unresolved"] == ["example__text-2-insufficient", "example__calc-1-misfit"]
    assert [result["patch_applied"] for result in said["results"]] == [True, True, True, False]
    assert said["results"][2]["tests"] == {"test_slug": "ok", "test_slug_of_several_blanks": "FAIL"}
    assert "patch does not apply" in said["results"][3]["log"]
    instances = [api(f"instances/{result['instance']}") for result in said["results"]]
    assert [instance["status"] for instance in instances] == ["STOPPED"] * 4
    assert 1 <= at_once(instances) <= 2
    assert api("tools?tag.benchmark=swe-bench")["items"] == []


@pytest.mark.skipif(OVER_TLS, reason="run over plain HTTP")
def test_the_walk_through_swebench_is_broken_off(newest, tmp_path):
    tasks = json.loads((EXAMPLES / "swebench" / "tasks.json").read_text())
    (tmp_path / "tasks.json").write_text(json.dumps([task | {"test_command": "touch begun; sleep 1000"} for task in tasks]))
    walk = [sys.executable, str(EXAMPLES / "swebench" / "walkthrough.py"), "--parallel", "2", "--tasks", str(tmp_path / "tasks.json")]
    with subprocess.Popen(walk, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            instances = eventually(lambda: busy_instances(2))
            process.terminate()
            assert process.wait(timeout=60) == 143, process.stderr.read()
        finally:
            process.kill()
    assert [api(f"instances/{id}")["status"] for id in instances] == ["STOPPED"] * 2
    assert api("tools?tag.benchmark=swe-bench")["items"] == []
    assert api("instances?status=STARTING,RUNNING&metadata.benchmark=swe-bench")["items"] == []
