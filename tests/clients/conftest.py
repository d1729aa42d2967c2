"""The emulator that `scripts/test-clients` started, as the official SDKs see it."""

import json
import os
import urllib.request

import pytest

URL = os.environ["AGS_EMULATOR_URL"]
ADMIN_URL = os.environ["AGS_EMULATOR_ADMIN_URL"]


class Admin:
    """The emulator's admin port."""

    def request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(ADMIN_URL + path, data, headers, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            text = response.read()
        return json.loads(text) if text else None

    def add_fault(self, rule):
        return self.request("POST", "/faults", rule)

    def change(self, **settings):
        return self.request("POST", "/settings", settings)


@pytest.fixture
def admin():
    admin = Admin()
    before = admin.request("GET", "/settings")
    yield admin
    admin.request("DELETE", "/faults")
    admin.request("POST", "/settings", before)
