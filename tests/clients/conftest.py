"""The service that `scripts/test-clients` started, as the official SDKs see it: the emulator, or a gateway in front of one, by plain
HTTP or over TLS with names of its own."""

import asyncio
import json
import os
import urllib.request
from importlib.metadata import PackageNotFoundError, version

import pytest

TARGET = os.environ["AGS_CLIENTS_TARGET"]
OVER_TLS = TARGET == "tls"
GATEWAY = TARGET == "gateway" or OVER_TLS
URL = os.environ["AGS_CLIENTS_URL"]
# Tencent's SDK trusts a list of its own unless told.
AUTHORITIES = os.environ.get("SSL_CERT_FILE") if OVER_TLS else None
API_KEY = os.environ["AGS_CLIENTS_API_KEY"]
ADMIN_URL = os.environ["AGS_EMULATOR_ADMIN_URL"]

# What E2B's SDKs read. The gateway's face is mounted, its data plane is at the root. Over TLS they find both by E2B_DOMAIN.
if not OVER_TLS:
    os.environ["E2B_API_URL"] = URL + "/e2b" if GATEWAY else URL
    os.environ["E2B_SANDBOX_URL"] = URL
os.environ["E2B_API_KEY"] = API_KEY


LOOP = asyncio.new_event_loop()


def run(coroutine):
    """Runs it on the one loop of all tests: older SDKs keep connections beyond the sandbox that they were made for."""
    return LOOP.run_until_complete(coroutine)


def timed_out():
    """What a command that takes too long raises. Older SDKs let their HTTP library's complaint through when its clock, which is
    set to the same time, strikes before the sandbox's."""
    import httpcore
    from e2b import TimeoutException

    newer = tuple(int(part) for part in version("e2b").split(".")[:2]) >= (2, 45)
    return TimeoutException if newer else (TimeoutException, httpcore.ReadTimeout)


# What the table in docs/E2B.md is about.
OF_E2B = ("test_e2b", "test_code_interpreter", "test_gateway")


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


def package(module):
    """The distribution that a module's tests are about."""
    name = "e2b-code-interpreter" if "interpreter" in module else "e2b"
    try:
        return f"{name} {version(name)} (Python)"
    except PackageNotFoundError:
        return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Writes down what came of each test, for the table in docs/E2B.md."""
    report = (yield).get_result()
    file = os.environ.get("AGS_CLIENTS_REPORT")
    module = item.module.__name__
    if not file or module not in OF_E2B or not (report.when == "call" or report.failed or report.skipped):
        return
    name = item.originalname.removeprefix("test_").replace("_", " ")
    line = {"sdk": package(module), "test": name, "outcome": report.outcome}
    with open(file, "a", encoding="utf-8") as out:
        print(json.dumps(line), file=out)
