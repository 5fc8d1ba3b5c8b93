"""Runs the project's commands as a user does, each in a new Python; `tests.forks` does so in less time."""

import collections
import json
import os
import socket
import subprocess
import sys

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TIME_LIMIT = 600  # seconds, so that a command that hangs ends its test, however busy the machine is

# What pytest's run or a user's shell would change.
OF_SHELLS = ("TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG")

# code: the exit code. out, err: what was written to stdout and stderr, as text.
Result = collections.namedtuple("Result", "code out err")


def words(command):
    """The command line as a list: "run_classifier.py", or "serving.predictor" for python -m; its flags."""
    name, flags = command[0], [str(word) for word in command[1:]]
    return ([name] if name.endswith(".py") else ["-m", name]) + flags


def environment(**more):
    """This process's, without `OF_SHELLS`."""
    return dict({name: value for name, value in os.environ.items() if name not in OF_SHELLS}, **more)


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
