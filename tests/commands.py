"""Runs the project's commands as a user does; importing TensorFlow costs seconds, so most are forked.

`command` starts a new Python. A `Forks` is a process that has imported TensorFlow and does nothing but fork:
the child has the command line of a new Python, and all but the import happens in it.
"""

import collections
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TIME_LIMIT = 600  # seconds, so that a command that hangs ends its test, however busy the machine is

# code: the exit code. out, err: what was written to stdout and stderr, as text.
Result = collections.namedtuple("Result", "code out err")


def words(command):
    """The command line as a list: "run_classifier.py", or "serving.predictor" for python -m; its flags."""
    name, flags = command[0], [str(word) for word in command[1:]]
    return ([name] if name.endswith(".py") else ["-m", name]) + flags


def environment(**more):
    """This process's, without what pytest's run or a user's shell would change."""
    kept = dict(os.environ, **more)
    for name in {"TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG"} - set(more):
        kept.pop(name, None)
    return kept


def start(*command, **more):
    """A new Python; returns Popen with pipes. more: environment variables."""
    return subprocess.Popen([sys.executable] + words(command), cwd=CHECKOUT, env=environment(**more),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*command, stdin=b"", **more):
    """Runs a command in a new Python to its end: Result."""
    process = start(*command, **more)
    out, err = process.communicate(stdin, timeout=TIME_LIMIT)
    return Result(process.returncode, out.decode("utf-8"), err.decode("utf-8"))


def cluster(workers=2):
    """The environment of each worker of a cluster on this machine: a list of dicts with TF_CONFIG."""
    sockets = [socket.socket() for _ in range(workers)]
    for opened in sockets:
        opened.bind(("localhost", 0))
    addresses = ["localhost:%d" % opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return [{"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})}
            for index in range(workers)]


def contents(folder):
    """dict of name -> (bytes, time of the last change) of every file below a folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, folder)] = (stream.read(), os.stat(path).st_mtime_ns)
    return found


def read(*path):
    """The text of a file."""
    with open(os.path.join(*path), encoding="utf-8") as stream:
        return stream.read()


class Forks:
    """Runs commands in children of a process that has TensorFlow loaded."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"], cwd=CHECKOUT, env=environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)

    def run(self, *command, stdin=b"", **more):
        """Like `run`."""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "in"), "wb") as stream:
                stream.write(stdin)
            self._process.stdin.write(json.dumps({
                "folder": folder, "command": [str(word) for word in command], "environment": more}) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            texts = []
            for name in ("out", "err"):
                with open(os.path.join(folder, name), encoding="utf-8") as stream:
                    texts.append(stream.read())
        return Result(code, *texts)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def serve():
    """Reads a request a line, forks, and answers with the exit code."""
    from tests import quick  # noqa: F401

    import run_classifier  # noqa: F401  with all that they and their children import
    import run_distill  # noqa: F401
    import run_pretraining  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(**request)
        _, status = os.waitpid(child, 0)
        print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


def _become(folder, command, environment):
    """Turns this process into one that runs a command; does not return."""
    os.setpgrp()
    os.environ.update(environment)
    flags = {0: os.O_RDONLY, 1: os.O_WRONLY | os.O_CREAT, 2: os.O_WRONLY | os.O_CREAT}
    for number, name in enumerate(("in", "out", "err")):
        os.dup2(os.open(os.path.join(folder, name), flags[number]), number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8") for number, mode in enumerate(("r", "w", "w")))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    name = command[0]
    sys.argv = command
    code = 0
    try:
        if name.endswith(".py"):
            runpy.run_path(os.path.join(CHECKOUT, name), run_name="__main__")
        else:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
