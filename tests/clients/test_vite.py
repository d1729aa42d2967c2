"""Vite's dev server in a sandbox, seen through a preview: its page opens, and its WebSocket brings what changes."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from conftest import GATEWAY, OVER_TLS, URL

if not GATEWAY:
    pytest.skip("about the gateway", allow_module_level=True)
if OVER_TLS:
    pytest.skip("Chromium keeps authorities of its own", allow_module_level=True)
# One generation of SDKs is enough: none of them is used.
pytest.importorskip("e2b_code_interpreter")

BROWSER = Path(__file__).parent / "browser"
# Vite's own default.
PORT = 5173
VITE = ["node", "node_modules/vite/bin/vite.js", "--host", "127.0.0.1", "--port", str(PORT), "--strictPort"]


def call(method, path, body=None):
    """Status and what was said."""
    headers = {"Authorization": f"Bearer {os.environ['AGS_GATEWAY_KEY']}"}
    if isinstance(body, dict):
        headers["Content-Type"] = "application/json"
        body = json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/v1/{path}", body, headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def done(*request):
    status, said = call(*request)
    assert status < 300, said
    return json.loads(said or "null")


@pytest.fixture
def instance():
    """The path of an instance of a tool of its own."""
    tool = done("POST", "tools?wait=20s", {"name": f"vite-{uuid.uuid4().hex[:8]}", "type": "custom"})
    try:
        made = done("POST", "instances?wait=20s", {"tool": tool["id"], "timeout": "5m"})
        try:
            yield f"instances/{made['id']}"
        finally:
            done("DELETE", f"instances/{made['id']}")
    finally:
        done("DELETE", f"tools/{tool['id']}")


def archive(modules):
    """The page's files, with Vite and what it needs."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(BROWSER / "vite", arcname=".")
        tar.add(Path(modules, "node_modules"), arcname="node_modules")
    return content.getvalue()


def listens(instance, exec):
    """Waits until Vite answers, and watches the page's files."""
    deadline = time.monotonic() + 60
    while (answer := call("GET", f"{instance}/ports/{PORT}/watching"))[0] != 204:
        is_running = done("GET", f"{instance}/execs/{exec}")["status"] == "running"
        # 502: nothing listens; 503: nothing is watched.
        is_early = answer[0] in (502, 503) and is_running and time.monotonic() < deadline
        assert is_early, (answer, call("GET", f"{instance}/execs/{exec}/output"))
        time.sleep(0.05)


def test_a_page_changes_in_a_browser_without_a_reload(instance, tmp_path):
    chromium, browser, vite = shutil.which("chromium"), os.environ.get("AGS_CLIENTS_BROWSER"), os.environ.get("AGS_CLIENTS_VITE")
    if not chromium or not browser or not vite:
        pytest.skip("chromium or npm is not installed")
    done("PUT", f"{instance}/archive?path=/srv/page", archive(vite))
    exec = done("POST", f"{instance}/exec", {"cmd": VITE, "cwd": "/srv/page", "background": True})
    listens(instance, exec["id"])
    preview = done("POST", f"{instance}/previews", {"port": PORT})
    driver = shutil.copy(BROWSER / "vite.mjs", browser)
    module = f"{URL}/v1/{instance}/files?path=/srv/page/note.js"
    command = ["node", driver, chromium, preview["url"], module, str(tmp_path)]
    driven = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert driven.returncode == 0, driven.stdout + driven.stderr
