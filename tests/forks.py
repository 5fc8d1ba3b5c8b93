"""Runs the project's commands as a user does, but in children of a process that has loaded them.

Importing TensorFlow costs seconds. A child has the command line of a new Python, and all but the import happens in it.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile

from tests import commands

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.loaded"])


def start(command, streams, quick=False, **environment):
    """Starts a command, the leader of a session of its own.

    Args:
      command: as of `commands.words`.
      streams: paths of its standard input, output and error; the last two may be one.
      quick: bool, whether its graphs start sooner than those of users, see `tests.quick`.
      environment: variables that are added.

    Returns:
      multiprocessing's Process, whose `exitcode` is the command's.
    """
    process = _CONTEXT.Process(
        target=_become, args=([str(word) for word in command], streams, quick, environment))
    process.start()
    return process


def run(*command, stdin=b"", **environment):
    """Like `commands.run`, quick."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [os.path.join(folder, name) for name in ("in", "out", "err")]
        with open(streams[0], "wb") as stream:
            stream.write(stdin)
        process = start(command, streams, quick=True, **environment)
        process.join(commands.TIME_LIMIT)
        if process.is_alive():
            process.kill()
            process.join()
        return commands.Result(process.exitcode, commands.read(streams[1]), commands.read(streams[2]))


def _become(command, streams, quick, environment):
    """Turns this process into one that runs a command; does not return."""
    os.setsid()
    os.chdir(commands.CHECKOUT)
    os.environ.update(environment)
    _open_streams(*streams)
    multiprocessing.set_start_method("fork", force=True)  # as in a new Python; here it was its parent's
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new Python; its parent does not listen
    if quick:
        import tests.quick  # noqa: F401
    name = command[0]
    sys.argv = command
    code = 0
    try:
        if name.endswith(".py"):
            runpy.run_path(os.path.join(commands.CHECKOUT, name), run_name="__main__")
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


def _open_streams(*paths):
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, path in enumerate(paths):
        os.dup2(os.open(path, flags if number else os.O_RDONLY), number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering, encoding="utf-8") for number, (mode, buffering) in enumerate((
            ("r", -1), ("w", -1), ("w", 1))))  # errors line by line, as Python tells them
