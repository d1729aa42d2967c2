"""The e2b-code-interpreter SDK, unmodified, against the code interpreter in the emulator's sandboxes."""

import threading
import time

import pytest

# The older generation of SDKs reaches the interpreter by host names over TLS only.
interpreter = pytest.importorskip("e2b_code_interpreter")

from e2b.exceptions import NotFoundException, SandboxException, TimeoutException

PICTURE = """
class Chart:
    def _repr_png_(self):
        return b"\\x89PNG"
    def _repr_html_(self):
        return "<b>chart</b>"
display(Chart())
Chart()
"""


@pytest.fixture(scope="module")
def sandbox():
    sandbox = interpreter.Sandbox.create(timeout=300, envs={"FROM_CREATE": "wide"})
    yield sandbox
    sandbox.kill()


def test_state_lasts_from_run_to_run(sandbox):
    first = sandbox.run_code("x = 20\nprint('out')\nx + 1")
    assert (first.text, first.logs.stdout, first.error) == ("21", ["out\n"], None)
    second = sandbox.run_code("x * 2")
    assert second.text == "40"
    assert second.execution_count == first.execution_count + 1


def test_results_are_as_rich_as_they_are(sandbox):
    execution = sandbox.run_code(PICTURE)
    assert [result.is_main_result for result in execution.results] == [False, True]
    for result in execution.results:
        assert (result.png, result.html) == ("iVBORw==", "<b>chart</b>")
    assert sandbox.run_code("'quoted é😀'").text == "quoted é😀"


def test_an_error_is_an_object(sandbox):
    error = sandbox.run_code("1 / 0").error
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in error.traceback


def test_callbacks_hear_everything_as_it_happens(sandbox):
    out, err, results, errors = [], [], [], []
    sandbox.run_code(
        "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(1)\nundefined",
        on_stdout=lambda message: out.append((message.line, message.error)),
        on_stderr=lambda message: err.append((message.line, message.error)),
        on_result=lambda result: results.append(result.text),
        on_error=lambda error: errors.append(error.name),
    )
    assert (out, err) == ([("a\n", False)], [("b\n", True)])
    assert (results, errors) == (["1"], ["NameError"])


def test_contexts(sandbox):
    context = sandbox.create_code_context(language="python", cwd="/tmp")
    assert (context.language, context.cwd) == ("python", "/tmp")
    assert sandbox.list_code_contexts()[-1].id == context.id
    assert [one.language for one in sandbox.list_code_contexts()[:2]] == ["python", "javascript"]
    sandbox.run_code("y = 1\nimport os", context=context)
    assert sandbox.run_code("y, os.getcwd()", context=context).text == "(1, '/tmp')"
    assert sandbox.run_code("y").error.name == "NameError"
    sandbox.restart_code_context(context)
    error = sandbox.run_code("y", context=context).error
    assert (error.name, error.value) == ("NameError", "name 'y' is not defined")
    sandbox.remove_code_context(context)
    assert context.id not in [one.id for one in sandbox.list_code_contexts()]
    with pytest.raises(NotFoundException):
        sandbox.run_code("1", context=context)


def test_a_timeout_interrupts(sandbox):
    sandbox.run_code("kept = 5")
    began = time.monotonic()
    with pytest.raises(TimeoutException):
        sandbox.run_code("import time\ntime.sleep(300)", timeout=3)
    assert sandbox.run_code("1 + 1", timeout=10).text == "2"
    assert time.monotonic() - began < 13
    assert sandbox.run_code("kept").text == "5"


def test_silence_is_no_end(sandbox):
    assert sandbox.run_code("time.sleep(6)\n'awake'", timeout=30).text == "awake"


def test_languages(sandbox):
    assert sandbox.run_code("const z = 3; z + 1", language="javascript").text == "4"
    assert sandbox.run_code("await Promise.resolve(z * 2)", language="js").text == "6"
    assert sandbox.run_code("w=2; echo $((w + 3))", language="bash").logs.stdout == ["5\n"]
    assert sandbox.run_code("exit_code() { return 3; }; exit_code", language="bash").error.value == "3"
    with pytest.raises(SandboxException, match="500"):
        sandbox.run_code("1", language="cobol")


def test_environment(sandbox):
    code = "import os\nos.environ.get('FROM_CREATE'), os.environ.get('FROM_RUN')"
    assert sandbox.run_code(code, envs={"FROM_RUN": "once"}).text == "('wide', 'once')"
    assert sandbox.run_code(code).text == "('wide', None)"
    assert sandbox.run_code(code, envs={"FROM_CREATE": "narrow"}).text == "('narrow', None)"
    assert sandbox.run_code(code).text == "('wide', None)"


def test_files_and_commands_are_in_the_same_sandbox(sandbox):
    sandbox.files.write("data.txt", "of files")
    assert sandbox.run_code("open('data.txt').read()").text == "of files"
    assert sandbox.commands.run("whoami").stdout.strip() == sandbox.run_code("!whoami").logs.stdout[0].strip()


def test_runs_of_one_context_wait_for_each_other(sandbox):
    sandbox.run_code("order = []")
    code = "import time\norder.append('{0}-begins')\ntime.sleep(0.3)\norder.append('{0}-ends')"
    runs = [threading.Thread(target=sandbox.run_code, args=[code.format(name)]) for name in "ab"]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    order = [step.split("-")[0] for step in eval(sandbox.run_code("order").text)]
    assert order in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


def test_a_killed_sandbox_breaks_a_run_off():
    sandbox = interpreter.Sandbox.create(timeout=60)
    killer = threading.Timer(1, sandbox.kill)
    killer.start()
    with pytest.raises(TimeoutException):
        sandbox.run_code("import time\ntime.sleep(60)")
    killer.join()
