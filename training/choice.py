"""Something that a process chooses once, and that a block of code may choose otherwise."""

import contextlib


class Choice:
    """A value; the innermost block's counts."""

    def __init__(self, value):
        self._values = [value]

    def get(self):
        """The value that counts here."""
        return self._values[-1]

    def use(self, value):
        """Chooses for the process."""
        self._values[0] = value

    @contextlib.contextmanager
    def using(self, value):
        """Within it this value counts, whatever was chosen before."""
        self._values.append(value)
        try:
            yield
        finally:
            self._values.pop()
