"""JSON files read into typed dataclasses that refuse what they do not know."""

import dataclasses
import difflib

from training.command import UserError
from training.files import read_json


def from_dict(cls, values, source, ignored=(), fixed=None):
    """Builds a dataclass from a dict, checking keys and types.

    Args:
      cls: a dataclass whose fields are int, float, bool, str or list.
      values: dict.
      source: where the values come from, for messages.
      ignored: keys that may stand there and mean nothing to us.
      fixed: dict of keys that may stand there with that value alone, because no other is implemented.

    Raises:
      UserError: unknown key (the nearest known one is named), missing key, wrong type, a value that is not
        implemented, or a ValueError of the class's own `__post_init__`.
    """
    if not isinstance(values, dict):
        raise UserError("%s: a JSON object is needed, found %s" % (source, type(values).__name__))
    fields = {field.name: field for field in dataclasses.fields(cls)}
    arguments = {}
    for key, value in values.items():
        if key in ignored:
            continue
        if fixed and key in fixed:
            _check_fixed(key, value, fixed[key], source)
            continue
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            raise UserError("%s: unknown key %r%s" % (
                source, key,
                "; did you mean %r?" % near[0] if near else "; known: " + ", ".join(sorted(fields))))
        arguments[key] = _checked(value, fields[key].type, key, source)
    missing = [name for name, field in fields.items()
               if field.default is dataclasses.MISSING and name not in arguments]
    if missing:
        raise UserError("%s: %r is missing" % (source, missing[0]))
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError("%s: %s" % (source, error))


def _check_fixed(key, value, implemented, source):
    if value != implemented:
        raise UserError("%s: %r must be %r, found %r: no other network is implemented"
                        % (source, key, implemented, value))


def _checked(value, kind, key, source):
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError("%s: %r must be of type %s, found %r" % (source, key, kind.__name__, value))
    return value


def read(cls, path, ignored=()):
    """Reads a JSON file into a dataclass; see `from_dict`."""
    return from_dict(cls, read_json(path), path, ignored)


def check_probability(config, *names):
    """Raises ValueError unless each named field is in [0, 1)."""
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ValueError("%r must be at least 0 and below 1, found %r" % (name, getattr(config, name)))


def check_positive(config, *names):
    """Raises ValueError unless each named field is above 0."""
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError("%r must be above 0, found %r" % (name, getattr(config, name)))
