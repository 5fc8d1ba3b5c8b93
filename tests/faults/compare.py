"""Whether two folders hold the same work: weights within rounding, figures too, everything else byte for byte.

Of a run's own checkpoints only the last: one that a signal asked for stands in the place of another before it.
"""

import json
import os
import re

import numpy as np
import tensorflow.compat.v1 as tf

SAME_WEIGHTS = 1e-5
SAME_FIGURES = 1e-4
# Times, places, and what only people look at.
IGNORED_FILES = re.compile(r"(^|/)(events\.out\..*|command\.txt|checkpoint|.*\.(png|html|md|pb|lock))$")
IGNORED_KEYS = {"folder", "seconds", "milliseconds", "memory", "created", "command", "commands", "ms", "latency"}
CHECKPOINT = re.compile(r"\.(index|data-\d+-of-\d+)$")
OF_STEP = re.compile(r"(.*)-(\d+)\.(index|data-\d+-of-\d+)$")
TIME_OF_EXPORT = re.compile(r"/\d{10}/")


def difference(one, other):
    """The first difference between two folders, in words; "" when there is none."""
    ours, theirs = _files(one), _files(other)
    if sorted(ours) != sorted(theirs):
        return "%s: in one of the two only" % sorted(set(ours) ^ set(theirs))[0]
    for name in sorted(ours):
        found = _of_file(name, ours[name], theirs[name])
        if found:
            return "%s: %s" % (name, found)
    return ""


def _files(folder):
    """dict of name, without the times that stand in it -> path; a single file is "" """
    if os.path.isfile(folder):
        return {"": folder}
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            short = TIME_OF_EXPORT.sub("/T/", "/" + os.path.relpath(path, folder))[1:]
            if not IGNORED_FILES.search(short):
                found[short] = path
    return {name: path for name, path in found.items() if not _is_before(name, found)}


def _is_before(name, names):
    """Whether a file is of a checkpoint, and another of the same run is of a later one."""
    match = OF_STEP.match(name)
    later = [other for other in map(OF_STEP.match, names) if match and other and other.group(1) == match.group(1)]
    return any(int(other.group(2)) > int(match.group(2)) for other in later)


def _of_file(name, one, other):
    if name.endswith(".index"):
        return _of_weights(one[:-len(".index")], other[:-len(".index")])
    if CHECKPOINT.search(name):
        return ""
    contents = []
    for path in (one, other):
        with open(path, "rb") as stream:
            contents.append(stream.read())
    if contents[0] == contents[1]:
        return ""
    if name.endswith(".json"):
        return _of_values(*(json.loads(content.decode("utf-8")) for content in contents))
    if name.endswith((".tsv", ".csv", ".jsonl", ".txt")):
        return _of_values(*(re.split(r"[\t\n, ]", content.decode("utf-8")) for content in contents))
    return "other bytes"


def _of_weights(one, other):
    readers = [tf.train.load_checkpoint(prefix) for prefix in (one, other)]
    names = [sorted(reader.get_variable_to_shape_map()) for reader in readers]
    if names[0] != names[1]:
        return "other variables"
    for name in names[0]:
        ours, theirs = (np.asarray(reader.get_tensor(name)) for reader in readers)
        if ours.dtype.kind == "f" and not np.allclose(ours, theirs, rtol=SAME_WEIGHTS, atol=SAME_WEIGHTS):
            return "%s differs by %g" % (name, np.abs(ours - theirs).max())
        if ours.dtype.kind != "f" and not np.array_equal(ours, theirs):
            return "%s differs" % name
    return ""


def _of_values(one, other, place=""):
    if isinstance(one, dict) and isinstance(other, dict):
        if sorted(one) != sorted(other):
            return "%s: other keys" % place
        pairs = [(key, one[key], other[key]) for key in sorted(one) if key not in IGNORED_KEYS]
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return "%s: %d and %d values" % (place, len(one), len(other))
        pairs = [(str(number), *both) for number, both in enumerate(zip(one, other))]
    else:
        return "" if _is_same(one, other) else "%s: %r and %r" % (place, one, other)
    for key, *both in pairs:
        found = _of_values(*both, "%s/%s" % (place, key))
        if found:
            return found
    return ""


def _is_same(one, other):
    if one == other:
        return True
    try:
        return abs(float(one) - float(other)) <= SAME_FIGURES * max(1.0, abs(float(one)))
    except (TypeError, ValueError):
        return isinstance(one, str) and isinstance(other, str) and _without_time(one) == _without_time(other)


def _without_time(text):
    return TIME_OF_EXPORT.sub("/T/", text)
