"""Runs Python cells for the interpreter server.

File descriptor 0 is a socket: requests come in and replies go out as lines of JSON. What the code prints goes to the
descriptors 1 and 2 as it is, so that the output of child processes is in its place among it.
"""

import ast
import asyncio
import base64
import builtins
import inspect
import json
import linecache
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types

FLUSH_SECONDS = 0.1
REPRESENTATIONS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_pdf_": "application/pdf",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
}
SHELL_LINE = re.compile(r"^(\s*)(?:!|(?=%pip\s))(.+)$")


def take_over_socket():
    """The socket on a descriptor of its own, which children do not inherit."""
    connection = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return connection


class Kernel:
    def __init__(self, connection):
        self.requests = connection.makefile("r", encoding="utf-8")
        self.replies = connection.makefile("wb")
        self.lock = threading.Lock()
        self.running = False
        self.cells = 0
        self.loop = None
        # What cells share is a module, as pickle and dataclasses look their classes up by the module's name.
        self.module = types.ModuleType("__main__")
        self.module.__dict__.update(__builtins__=builtins, display=self.display, _shell=self.shell)
        sys.modules["__main__"] = self.module

    def reply(self, **message):
        # An interrupt comes before or after a line, never within one.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            with self.lock:
                # What is no character goes out as a question mark.
                self.replies.write(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                self.replies.flush()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def serve(self):
        signal.signal(signal.SIGINT, self.interrupt)
        threading.Thread(target=self.flush_often, daemon=True).start()
        self.reply(type="ready")
        for line in self.requests:
            request = json.loads(line)
            set_environment(request["env"])
            self.run(request["code"])
            set_environment(request["restore"])
            self.reply(type="done")

    def interrupt(self, *_):
        """A cell is interrupted; between cells there is nothing to be."""
        if self.running:
            raise KeyboardInterrupt

    def flush_often(self):
        """Shows a line that is not finished yet."""
        pause = threading.Event()
        while not pause.wait(FLUSH_SECONDS):
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError, RuntimeError):
                    pass

    def run(self, source):
        self.cells += 1
        name = f"<cell {self.cells}>"
        source = "\n".join(map(shell_line, source.split("\n")))
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            self.running = True
            try:
                value = self.execute(source, name)
                if value is not None:
                    self.module.__dict__["_"] = value
                    self.show(value, main=True)
                self.show_figures()
            finally:
                self.running = False
        except BaseException as error:
            self.fail(error)

    def execute(self, source, name):
        """The value of the last statement, if it is an expression that no semicolon follows."""
        tree = ast.parse(source, name)
        last = tree.body[-1] if tree.body else None
        quiet = source.rstrip().endswith(";")
        if not isinstance(last, ast.Expr):
            self.evaluate(compile_top(tree, name, "exec"))
            return None
        tree.body.pop()
        self.evaluate(compile_top(tree, name, "exec"))
        value = self.evaluate(compile_top(ast.Expression(last.value), name, "eval"))
        return None if quiet else value

    def evaluate(self, code):
        value = eval(code, self.module.__dict__)
        if not code.co_flags & inspect.CO_COROUTINE:
            return value
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(value)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            raise

    def display(self, *values):
        """Shows values on the way, as rich as they are."""
        for value in values:
            self.show(value, main=False)

    def show(self, value, main):
        self.reply(type="result", main=main, data=representations(value))

    def show_figures(self):
        """The figures that a cell leaves open, where matplotlib is in use."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            self.show(Picture(figure), main=False)
            pyplot.close(figure)

    def shell(self, line):
        """A line that begins with an exclamation mark."""
        subprocess.run(line, shell=True, executable="/bin/bash", check=False)

    def fail(self, error):
        trace = error.__traceback__
        while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<cell "):
            trace = trace.tb_next
        told = traceback.TracebackException(type(error), error, trace)
        told.stack[:] = [frame for frame in told.stack if frame.filename != __file__]
        self.reply(type="error", name=type(error).__name__, value=str(error), traceback="".join(told.format()))


class Picture:
    """A matplotlib figure as others show themselves."""

    def __init__(self, figure):
        self.figure = figure

    def _repr_png_(self):
        from io import BytesIO

        buffer = BytesIO()
        self.figure.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()

    def __repr__(self):
        return repr(self.figure)


def shell_line(line):
    match = SHELL_LINE.match(line)
    if match is None:
        return line
    indent, command = match.groups()
    if command.startswith("%pip"):
        command = f"{sys.executable} -m {command[1:]}"
    return f"{indent}_shell({command!r})"


def compile_top(tree, name, mode):
    return compile(tree, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def set_environment(changes):
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def representations(value):
    """A value by MIME type. A representation that fails is left out, as in a notebook."""
    data = {"text/plain": repr(value)}
    if isinstance(value, type):
        return data
    for method, mime in REPRESENTATIONS.items():
        shown = call(value, method)
        if shown is not None:
            data[mime] = encoded(mime, shown)
    bundle = call(value, "_repr_mimebundle_")
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    if isinstance(bundle, dict):
        data.update((mime, encoded(mime, shown)) for mime, shown in bundle.items())
    return data


def call(value, method):
    try:
        found = getattr(value, method, None)
        shown = found() if callable(found) else None
    except Exception:
        return None
    return shown[0] if isinstance(shown, tuple) and method != "_repr_mimebundle_" and shown else shown


def encoded(mime, shown):
    if isinstance(shown, (bytes, bytearray)):
        return base64.b64encode(shown).decode()
    try:
        json.dumps(shown, allow_nan=False)
    except (TypeError, ValueError):
        return repr(shown)
    return shown


def main():
    connection = take_over_socket()
    sys.path[0] = ""
    # Matplotlib would look for a screen; what is to be shown is shown at the end of a cell.
    os.environ.setdefault("MPLBACKEND", "Agg")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    Kernel(connection).serve()


main()
