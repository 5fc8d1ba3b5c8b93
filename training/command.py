"""How every command of the project starts, and how it ends when something is wrong.

A command is a module with `define_flags()` and `main()`. Its last lines are

    if __name__ == "__main__":
        command.run(main, define_flags)

Import it before anything that imports TensorFlow, whose log it quiets, and which --help does without.
"""

import contextlib
import errno
import os
import re
import select
import signal
import sys

from absl import app
from absl import flags

from training import cluster
from training import interruption
from training import lock
from training import stand_in
from training.errors import UserError

# Read when TensorFlow is loaded. Its library logs an error where there is no GPU; what matters is raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Milliseconds that threads of Intel's build spin after a product, on the cores that our ops want next; 200 by itself.
os.environ.setdefault("KMP_BLOCKTIME", "1")

HELP = ("--help", "-help", "-h", "-?")

if set(HELP) & set(sys.argv[1:]):
    stand_in.install("tensorflow", "sklearn", "matplotlib", "apache_beam", "jieba", "onnx", "tflite", "google_crc32c")


def run(main, define_flags, writes=None):
    """Defines the flags, parses the command line and calls `main()`; does not return.

    Args:
      main, define_flags: functions without arguments.
      writes: name of the flag that says what is written: one process at a time may, see `training.lock`.
    """
    define_flags()
    _answer_help()
    interruption.install()
    app.run(lambda _: _exit(main, writes), flags_parser=_parse)


def run_action(actions):
    """Like `run`, for a command whose first argument chooses among several: `command build --flag=...`.

    Args:
      actions: dict of name -> (main, define_flags).
    """
    action = sys.argv[1] if len(sys.argv) > 1 else ""
    if action in actions:
        del sys.argv[1]
        run(*actions[action])
    if action in HELP:
        _print_help(sys.modules["__main__"].__doc__.strip())
    fail("%s: the first argument must be one of: %s; --help tells more"
         % (action or "no argument", ", ".join(sorted(actions))))


def check_packages(there, what, *names):
    """Raises UserError where optional packages are missing.

    Args:
      there: bool.
      what: the flag or the action that needs them, for the message.
      names: the packages; all are in requirements-export.txt.
    """
    if not there:
        raise UserError("%s: needs %s; pip install -r requirements-export.txt" % (what, " and ".join(names)))


def own_flags():
    """The running command's flags as dict of name -> value; absl's own are left out."""
    return {flag.name: flag.value for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}


def _answer_help():
    # absl's own --help ends with code 1, and runs only after every other flag was accepted.
    for word in HELP:
        if word in sys.argv[1:]:
            _print_help("%s\n\nFlags:\n%s" % (
                sys.modules["__main__"].__doc__.strip(),
                flags.FLAGS.get_key_flags_for_module(sys.argv[0]) and flags.FLAGS.main_module_help()))


def _print_help(text):
    with one_line_errors():
        print(text, flush=True)
    sys.exit(0)


def _parse(argv):
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        fail("%s; --help lists the flags" % error)
    if len(rest) > 1:
        fail("%s: not a flag; every argument is given as --name=value" % rest[1])
    return rest


def _exit(main, writes):
    with one_line_errors(), _writing(writes):
        main()
        print(end="", flush=True)  # here, where a reader that left is no error


@contextlib.contextmanager
def _writing(flag):
    """Holds the lock of what the flag names; in a cluster the chief does, for all."""
    path = flags.FLAGS[flag].value if flag else None
    if path and cluster.is_chief():
        with lock.held(path, flag):
            yield
    else:
        yield


@contextlib.contextmanager
def one_line_errors():
    """Turns what the user can put right, or has asked for, into one line and an exit code.

    UserError, a file that cannot be read or written, a full disk: 1. SIGTERM: 143, Ctrl-C: 130. Whoever read stdout
    has left, as `head` does: 141, without a word.
    """
    try:
        with interruption.undisguised():
            yield
    except UserError as error:
        fail(str(error))
    except interruption.Interrupted as stop:
        _end(str(stop), stop.code)
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes at its end
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        # TensorFlow tells of a full disk by errors of its own.
        if os.strerror(errno.ENOSPC) in str(error):
            fail("%s; what was whole before still is: make room and give the same command again" % _on_full_disk(error))
        if not isinstance(error, OSError) or error.filename is None:
            raise
        fail("%s: %s" % (error.filename, error.strerror))


def _nobody_reads(stream):
    """Whether a stream is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _on_full_disk(error):
    """"<path>: No space left on device", as far as the error tells."""
    found = re.search(r"[^\s:;]*[:;]? ?" + os.strerror(errno.ENOSPC), str(error)).group()
    path = getattr(error, "filename", None)
    return "%s: %s" % (path, os.strerror(errno.ENOSPC)) if path else found


def fail(message):
    """Says on stderr, in one line, what is wrong, and ends the process with code 1."""
    _end("error: " + " ".join(message.splitlines()), 1)


def _end(line, code):
    sys.stderr.write("%s: %s\n" % (os.path.basename(sys.argv[0]), line))
    sys.stderr.flush()
    sys.exit(code)
