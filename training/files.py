"""Files that appear whole or not at all, and the small formats of a run folder."""

import contextlib
import ctypes
import glob
import hashlib
import json
import os
import shutil

from training.command import UserError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux: renameat2(2)


@contextlib.contextmanager
def whole_file(path):
    """Yields a temporary name beside `path`; renames it to `path` when the block ends well.

    The temporary file is removed when the block raises; a process that is killed leaves at most
    `<path>.tmp-<pid>`, which nothing reads. It is there, new and empty, when the block begins: in a folder that others
    may write to, nobody can have put a link in its place.
    """
    temporary = "%s.tmp-%d" % (path, os.getpid())
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if os.path.lexists(temporary):  # of a killed process that had our number
        os.remove(temporary)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def sweep(folder):
    """Removes what `whole_file` of killed processes has left in a folder that nobody else writes to now."""
    remove_all(os.path.join(glob.escape(folder), "*.tmp-[0-9]*"))


def remove_all(*patterns):
    """Removes the files and folders that match."""
    for path in [path for pattern in patterns for path in glob.glob(pattern)]:
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


@contextlib.contextmanager
def whole_folder(path):
    """Yields a temporary folder beside `path`; it takes the place of `path` when the block ends well.

    Where Linux can exchange two folders, who reads always finds one of them. Elsewhere the old one is set aside first:
    a process killed between the two renames leaves `<path>.old`, which `recover_folder` puts back.
    """
    path = os.path.normpath(path)  # a slash at the end would put the temporary folder inside
    temporary, old = path + ".tmp", path + ".old"
    recover_folder(path)
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if os.path.exists(path) and _exchange(temporary, path):
        shutil.rmtree(temporary)
        return
    if os.path.exists(path):
        os.rename(path, old)
    os.rename(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one, other):
    """Lets two folders change places in one step; returns whether that could be done."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return bool(renameat2) and not renameat2(
        AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def recover_folder(path):
    """Undoes a replacement by `whole_folder` that was cut short."""
    path = os.path.normpath(path)
    old = path + ".old"
    if os.path.exists(old):
        if os.path.exists(path):
            shutil.rmtree(old)
        else:
            os.rename(old, path)


def write_bytes(path, content):
    """Writes `content`, whole or not at all."""
    with whole_file(path) as temporary:
        with open(temporary, "wb") as stream:
            stream.write(content)


def write_text(path, text):
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def to_json(value):
    """`value` as indented JSON with Chinese characters left readable."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def write_json(path, value):
    """Writes `value` as `to_json`."""
    write_text(path, to_json(value))


def read_json(path):
    """Reads one JSON value.

    Raises:
      UserError: the file is not JSON (the message names file, line and column), or not UTF-8.
    """
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError("%s:%d:%d: not JSON: %s" % (path, error.lineno, error.colno, error.msg))


def read_bytes(path):
    """All of a file."""
    with open(path, "rb") as stream:
        return stream.read()


def read_lines(path):
    """The lines of a UTF-8 text file, without their ends.

    Raises:
      UserError: the file is not UTF-8.
    """
    # str.splitlines would also cut at U+2028 and the like, which may stand inside a line.
    lines = _read_text(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def _read_text(path):
    with open(path, encoding="utf-8") as stream:
        try:
            return stream.read()
        except UnicodeDecodeError as error:
            raise UserError("%s: not UTF-8: %s at byte %d" % (path, error.reason, error.start))


def digest(path):
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    state = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()


def matching_files(patterns, flag, optional=False):
    """The files that match comma-separated glob patterns, sorted, each once.

    Args:
      patterns: e.g. "corpus/*.txt,extra.txt".
      flag: the flag's name, for the message.
      optional: whether it need not be given, and then there are no files.

    Raises:
      UserError: a pattern matches nothing.
    """
    if optional and not patterns:
        return []
    found = set()
    for pattern in patterns.split(","):
        names = glob.glob(pattern)
        if not names:
            raise UserError("--%s=%s: no such file" % (flag, pattern))
        found.update(names)
    return sorted(found)
