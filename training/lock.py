"""One process at a time writes an output."""

import contextlib
import datetime
import errno
import fcntl
import os
import socket
import sys
import time

from training.errors import UserError

PATIENCE = 5.0  # seconds for what a killed holder has left behind: its workers end by themselves
CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(path, flag):
    """Holds the lock of an output while the block runs.

    The lock is the kernel's, on `<path>.lock`, so it ends with the process that holds it and with those that were
    forked from it, however they end; what a killed one leaves is an unlocked file, which is taken over. The file says
    who holds it.

    Args:
      path: the output, a folder or a file that need not be there yet.
      flag: the name of the flag the path was given by, for the message.

    Raises:
      UserError: another process holds it.
    """
    name = os.path.abspath(path) + ".lock"
    with _folder_of(name):
        stream = _locked(name, path, flag)
        try:
            yield
        finally:
            if stream:
                os.remove(name)  # still locked: who opens it now finds that it is no longer the one at its place
                stream.close()


@contextlib.contextmanager
def _folder_of(name):
    """Makes the folders above a file; those that stay empty are gone when the block ends."""
    missing, folder = [], os.path.dirname(name)
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for made in missing:
                os.rmdir(made)


def _locked(name, path, flag):
    """The open, locked file; None where the file system has no locks, which is said."""
    until = time.time() + PATIENCE
    while True:
        # Not through a link that others may have put there.
        stream = os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(stream)
            stream.close()
            if time.time() > until or _is_alive(*holder[:2]):
                raise UserError(
                    "--%s=%s: process %s on %s has been writing there since %s; wait for it or stop it, or give "
                    "another --%s" % ((flag, path) + holder + (flag,)))
            time.sleep(0.1)
            continue
        except OSError as error:
            stream.close()
            if error.errno not in CANNOT_LOCK:
                raise
            sys.stderr.write("%s: this file system has no locks (%s): see to it that no other process writes there\n"
                             % (name, error.strerror))
            return None
        if _is_at(name, stream):
            _sign(stream)
            return stream
        stream.close()


def _is_at(name, stream):
    """Whether the file stands at its name, from where the holder before may have removed it."""
    try:
        return os.path.samestat(os.stat(name), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _sign(stream):
    now = datetime.datetime.now().isoformat(" ", "seconds")
    stream.truncate(0)
    stream.write("%d\t%s\t%s\n" % (os.getpid(), socket.gethostname(), now))
    stream.flush()


def _holder(stream):
    """(process, host, since when), as text."""
    stream.seek(0)
    found = tuple(stream.read().rstrip("\n").split("\t"))
    return found if len(found) == 3 else ("?", "?", "a moment ago")


def _is_alive(process, host):
    """Whether the holder may still run; one of another machine may."""
    if host != socket.gethostname():
        return host != "?"
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
