"""The examples, run as their readers run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import GATEWAY

if not GATEWAY:
    pytest.skip("about the gateway", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sdks_story():
    pytest.importorskip("e2b")
    pytest.importorskip("tencentcloud.ags")
    said = run(sys.executable, str(EXAMPLES / "sdk_story.py"))
    for line in ["command: 42", "background: ['line 1', 'line 2', 'line 3']", "file: HELLO FROM OUTSIDE", "stopped", "deleted"]:
        assert line in said, said


def test_the_story_in_curl():
    # One generation of SDKs is enough: none of them is used.
    pytest.importorskip("e2b_code_interpreter")
    said = run(str(EXAMPLES / "story.sh"))
    for text in ["line 3", "begun", "done", "hello"]:
        assert text in said, said
    assert said.splitlines()[-1].startswith("ins")
