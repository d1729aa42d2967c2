"""SWE-bench with the gateway: an instance for each task, the patch applied, the tests run, the outcome as JSON.

    set -a; . .ags-gateway/dev.env; set +a        # AGS_GATEWAY_URL and AGS_GATEWAY_KEY
    python3 examples/swebench/walkthrough.py      # --as-runs: each task as one call; --help: the rest

Only the standard library is needed. A task has the fields of the data set (instance_id, patch, test_patch, FAIL_TO_PASS,
PASS_TO_PASS) and image, workdir and test_command.

In the local stack nothing pulls an image: every sandbox shows this machine's own programs, whatever image it names, and storage
mounts are recorded only. So tasks.json brings tiny repositories of its own (`files`), which are put where the image would have
one. Against the cloud: tasks without `files`, with images that exist there, and --envd-image with a real one.
"""

import argparse
import http.client
import io
import json
import os
import re
import shlex
import signal
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

# A repository as the image would have it; git wants to know who commits.
COMMIT = "git init -q && git add -A && git -c user.name=example -c user.email=example@example.com commit -qm base"
# How `unittest -v` says what became of a test. SWE-bench has a parser of its own for each repository.
OUTCOME = re.compile(r"^(\w+) \(.*\) \.\.\. (ok|FAIL|ERROR|skipped)", re.MULTILINE)
TEST_TIMEOUT = "30m"
# Streams are silent for less than this; waiting calls may take as long as they need.
SILENCE = 120
RECONNECTS = 100
PATCH_FAILED = 90


class Refusal(Exception):
    """What the gateway answers when it does not do something: its detail says what to do about it."""

    def __init__(self, problem):
        super().__init__(f"{problem.get('code', 'unknown')}: {problem.get('detail', problem)}")


class Gateway:
    def __init__(self, url, key):
        self.url, self.key = url.rstrip("/"), key

    def open(self, method, path, body=None, kind="application/json", **headers):
        headers |= {"Authorization": f"Bearer {self.key}"}
        if body is not None:
            headers["Content-Type"] = kind
            body = json.dumps(body).encode() if kind == "application/json" else body
        request = urllib.request.Request(f"{self.url}/v1/{path}", body, headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=SILENCE if method == "GET" else None)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise Refusal(json.loads(text) if text.startswith("{") else {"detail": text}) from None

    def call(self, *request, **more):
        with self.open(*request, **more) as answer:
            return json.loads(answer.read() or "null")


@contextmanager
def made_tool(gateway, options):
    """A tool for all tasks: each instance brings its own image. envd, which images of SWE-bench lack, is mounted from another."""
    envd = {"image": {"reference": options.envd_image, "image_registry_type": options.registry, "sub_path": "/nix"}}
    tool = {
        "name": f"swebench-{uuid.uuid4().hex[:8]}",
        "type": "custom",
        "image": "python:3.11",
        "image_registry_type": options.registry,
        "default_timeout": "1h",
        "resources": {"cpu": "2", "memory": "4Gi", "storage": "10Gi"},
        # An instance is RUNNING when this answers: envd itself.
        "probe": {"path": "/health", "port": 49983, "ready_timeout_ms": 120_000, "period_ms": 500, "failure_threshold": 240},
        "storage_mounts": [{"name": "envd", "mount_path": "/nix", "read_only": True, "source": envd}],
        "tags": {"benchmark": "swe-bench"},
    }
    if options.command:
        tool |= {"command": ["/bin/sh", "-c"], "args": [options.command]}
    made = gateway.call("POST", "tools?wait=60s", tool)
    try:
        if made["status"] != "ACTIVE":
            raise Refusal({"code": made["status"], "detail": made["status_reason"]})
        yield made["id"]
    finally:
        # None are left but when this was interrupted.
        for instance in gateway.call("GET", f"instances?tool={made['id']}&status=STARTING,RUNNING&limit=100")["items"]:
            gateway.call("DELETE", f"instances/{instance['id']}")
        gateway.call("DELETE", f"tools/{made['id']}")


class Sandbox:
    def __init__(self, gateway, id):
        self.gateway, self.id, self.path = gateway, id, f"instances/{id}"

    def write(self, path, content):
        query = urllib.parse.urlencode({"path": path})
        self.gateway.call("PUT", f"{self.path}/files?{query}", content.encode(), kind="application/octet-stream")

    def unpack(self, path, files):
        query = urllib.parse.urlencode({"path": path})
        self.gateway.call("PUT", f"{self.path}/archive?{query}", tar_of(files), kind="application/x-tar")

    def run(self, cmd, cwd):
        return self.gateway.call("POST", f"{self.path}/exec", {"cmd": cmd, "cwd": cwd, "timeout": "5m"})

    def run_long(self, cmd, cwd):
        """Hours are no matter: the command is durable, and when the connection breaks it is followed from where that was."""
        spec = {"cmd": cmd, "cwd": cwd, "timeout": TEST_TIMEOUT, "background": True, "durable": True}
        follow = f"{self.path}/execs/{self.gateway.call('POST', f'{self.path}/exec', spec)['id']}/output?follow=true"
        said, after = [], ""
        for _ in range(RECONNECTS):
            try:
                with self.gateway.open("GET", follow + after, Accept="application/x-ndjson") as events:
                    for event in map(json.loads, events):
                        if event["type"] == "exit":
                            return event, "".join(said)
                        said += [event["data"]] if event["type"] in ("stdout", "stderr") else []
                        after = f"&after={event['cursor']}" if "cursor" in event else after
            except (OSError, ValueError, http.client.HTTPException) as error:
                print(f"connecting again: {error}", file=sys.stderr)
            time.sleep(1)
        raise Refusal({"code": "lost", "detail": "The gateway cannot be reached any more."})


@contextmanager
def started_instance(gateway, tool, task):
    """With the task's image, in line where the quota is full. Its timeout is the last resort if this program is killed."""
    spec = {"tool": tool, "timeout": "1h", "metadata": {"task": task["instance_id"], "benchmark": "swe-bench"}}
    if task.get("image"):
        spec["image"] = task["image"]
    once = {"Idempotency-Key": uuid.uuid4().hex}
    instance = gateway.call("POST", "instances?wait=5m&queue=5m", spec, **once)
    try:
        if instance["status"] != "RUNNING":
            raise Refusal({"code": instance["status"], "detail": instance["status_reason"]})
        yield Sandbox(gateway, instance["id"])
    finally:
        stopping = gateway.call("DELETE", f"instances/{instance['id']}")
        while stopping and stopping["status"] == "STOPPING":  # A tool in use cannot be deleted.
            time.sleep(1)
            stopping = gateway.call("GET", f"instances/{instance['id']}")


def tar_of(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()


def in_an_instance(gateway, tool, task):
    """Step by step, as a harness does that looks at what comes of each."""
    workdir = task["workdir"]
    with started_instance(gateway, tool, task) as sandbox:
        if task.get("files"):
            sandbox.unpack(workdir, task["files"])
            sandbox.run(COMMIT, workdir)
        for name in ("patch", "test_patch"):
            sandbox.write(f"/tmp/{name}.diff", task[name])
            applied = sandbox.run(["git", "apply", "--verbose", f"/tmp/{name}.diff"], workdir)
            if applied["exit_code"] != 0:
                return {"instance": sandbox.id, "patch_applied": False, "log": applied["stderr"]}
        ended, log = sandbox.run_long(f"{task['test_command']} 2>&1", workdir)
        return {"instance": sandbox.id, "patch_applied": True, "exit_code": ended["exit_code"], "log": log}


def as_a_run(gateway, tool, task):
    """The same in one call: made, filled, executed, collected and destroyed by the gateway, whoever hangs up. A run takes its
    tool's image, so that real tasks want a tool for each image here."""
    workdir = task["workdir"]
    names = ("patch", "test_patch")
    files = [{"path": f"{workdir}/{name}", "content": content} for name, content in task.get("files", {}).items()]
    files += [{"path": f"/tmp/{name}.diff", "content": task[name]} for name in names]
    script = [COMMIT] if task.get("files") else []
    script += [f"git apply --verbose /tmp/{name}.diff > /tmp/test.log 2>&1 || exit {PATCH_FAILED}" for name in names]
    script += [f"{task['test_command']} > /tmp/test.log 2>&1"]
    spec = {"tool": tool, "files": files, "cwd": workdir, "cmd": "\n".join(script), "collect": ["/tmp/test.log"]}
    run = gateway.call("POST", "runs", spec | {"timeout": TEST_TIMEOUT})
    if run["error"]:
        raise Refusal(run["error"])
    outcome = {"instance": run["instance_id"], "patch_applied": run["exit_code"] != PATCH_FAILED}
    return outcome | {"exit_code": run["exit_code"], "log": run["files"][0]["content"]}


def judge(task, outcome):
    """Resolved: what failed passes, and what passed still does."""
    tests = dict(OUTCOME.findall(outcome["log"])) if outcome["patch_applied"] else {}
    wanted = task["FAIL_TO_PASS"] + task["PASS_TO_PASS"]
    return outcome | {"tests": tests, "resolved": all(tests.get(test) == "ok" for test in wanted)}


def evaluate(gateway, tool, task, how):
    """One task's result; an error is one, and keeps no other task from its own."""
    begun = time.monotonic()
    try:
        result = judge(task, how(gateway, tool, task))
    except (Refusal, OSError, http.client.HTTPException) as error:
        result = {"resolved": False, "error": str(error)}
    seconds = round(time.monotonic() - begun, 1)
    verdict = "resolved" if result["resolved"] else result.get("error") or "not resolved"
    print(f"{task['instance_id']}: {verdict} ({seconds} s)", file=sys.stderr)
    return {"instance_id": task["instance_id"], "seconds": seconds} | result


def report(results):
    of = lambda test: [result["instance_id"] for result in results if test(result)]
    return {
        "resolved": of(lambda result: result["resolved"]),
        "unresolved": of(lambda result: not result["resolved"] and "error" not in result),
        "errors": of(lambda result: "error" in result),
        "results": results,
    }


def parse_arguments():
    parser = argparse.ArgumentParser(description="Evaluates patches for SWE-bench tasks in sandboxes of an ags-gateway.")
    parser.add_argument("--tasks", type=Path, default=Path(__file__).with_name("tasks.json"), help="JSON list of tasks")
    parser.add_argument("--parallel", type=int, default=4, help="instances at once (%(default)s)")
    parser.add_argument("--as-runs", action="store_true", help="each task as one POST /v1/runs")
    parser.add_argument("--registry", default="enterprise", help="image_registry_type of the images (%(default)s)")
    parser.add_argument("--envd-image", default="ccr.example.com/tools/envd:latest", help="its /nix has envd (%(default)s)")
    parser.add_argument("--command", help="shell line that the tool starts with, where the image does not start envd by itself")
    return parser.parse_args()


def main():
    options = parse_arguments()
    # What is started is stopped then, too. The tool ends before the pool, which would wait for tasks that nobody waits for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    gateway = Gateway(os.environ["AGS_GATEWAY_URL"], os.environ["AGS_GATEWAY_KEY"])
    tasks = json.loads(options.tasks.read_text())
    how = as_a_run if options.as_runs else in_an_instance
    with ThreadPoolExecutor(options.parallel) as pool, made_tool(gateway, options) as tool:
        results = list(pool.map(lambda task: evaluate(gateway, tool, task, how), tasks))
    json.dump(report(results), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
