"""Progress of long work, on the standard error."""

import sys

from tqdm import tqdm


def bar(total, what, unit):
    """A progress bar with what is left and the time that takes; where it is no terminal, a line now and then.

    Args:
      total: of units, None when not known.
      what: str in front of it.
      unit: str, e.g. "B" for bytes.

    Returns:
      tqdm, a context manager with `update(number)`.
    """
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, file=sys.stderr,
                mininterval=0.2 if sys.stderr.isatty() else 10)
