"""Makes what the examples act on: two teams with wide quotas, their keys, and one of each thing that there is.

    stage.py DIRECTORY

Asks the gateway that AGS_GATEWAY_URL and AGS_GATEWAY_ADMIN_KEY name. Leaves in DIRECTORY `auth.json` (whom schemathesis is,
one after the other) and `stage.json` (ids, for hooks.py).
"""

import json
import os
import pathlib
import sys
import urllib.request

TEAM_SCOPES = [
    "tools:read", "tools:write", "instances:read", "instances:write", "exec", "exec:read", "files:read", "files:write",
    "ports", "tokens", "keys", "audit:read",
]
QUOTAS = {
    "max_instances": 10_000, "max_lifetime_seconds": 86_400, "max_execs": 10_000, "requests_per_second": 1_000_000,
}
GRANTS = {
    "role_arns": ["*"], "mounts": ["*"], "networks": ["*"], "upstreams": ["*"],
    "auth_modes": ["DEFAULT", "TOKEN", "PUBLIC", "NONE"], "tokens": True, "imports": True,
}
# Answers any path, so that calls of ports arrive.
SERVER = "cd /tmp && exec python3 -m http.server 8000"


class Gateway:
    def __init__(self, key):
        self.url, self.key = os.environ["AGS_GATEWAY_URL"], key

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def post(self, path, body):
        return self.call("POST", path, body)


def team(admin, name):
    return admin.post("/v1/teams", {"name": name, "quotas": QUOTAS, "grants": GRANTS})["id"]


def key(admin, team_id):
    return admin.post("/v1/keys", {"name": "examples", "team": team_id, "scopes": TEAM_SCOPES})


def instance(gateway, tool):
    return gateway.post("/v1/instances", {"tool": tool, "timeout": "1h", "metadata": {"purpose": "kept"}})["id"]


def things(gateway):
    """An instance of each kind, with a command, a server, a context and a file in it."""
    gateway.post("/v1/tools?wait=30s", {"name": "sandbox", "type": "custom", "persistent": True})
    custom, interpreter = instance(gateway, "sandbox"), instance(gateway, "code-interpreter-v1")
    command = {"cmd": "cat", "stdin": True, "background": True}
    execution = gateway.post(f"/v1/instances/{custom}/exec", command)
    server = gateway.post(f"/v1/instances/{custom}/exec", {"cmd": SERVER, "background": True})
    context = gateway.post(f"/v1/instances/{interpreter}/contexts", {"language": "python"})
    for kept in (custom, interpreter):
        line = "mkdir -p ~/data && echo notes > ~/notes.txt && echo notes > /tmp/0"
        gateway.post(f"/v1/instances/{kept}/exec", {"cmd": line, "user": "root"})
    return {
        "instance": custom, "interpreter": interpreter, "exec": execution["id"], "server": server["id"],
        "context": context["id"],
    }


def identity(name, secret):
    header = {"name": "Authorization", "value": f"Bearer {secret}"}
    return {"name": name, "fixedHeaders": [header]}


def main(directory):
    admin = Gateway(os.environ["AGS_GATEWAY_ADMIN_KEY"])
    me = admin.call("GET", "/v1/me")
    teams = {name: team(admin, f"schema {name}") for name in ("own", "neighbour", "spare")}
    keys = {name: key(admin, teams[name]) for name in ("own", "neighbour")}
    stage = {
        "teams": teams | {"admin": me["team"]["id"]},
        "keys": {"own": keys["own"]["id"], "spare": key(admin, teams["own"])["id"]},
        "own": things(Gateway(keys["own"]["secret"])),
    }
    identities = [identity(name, keys[name]["secret"]) for name in ("own", "neighbour")]
    (directory / "stage.json").write_text(json.dumps(stage))
    (directory / "auth.json").write_text(json.dumps({"auth": identities}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
