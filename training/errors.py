"""The error that a user can put right."""


class UserError(ValueError):
    """Something the user can put right: told in one line, without a traceback, exit code 1.

    The message names the file and line or the flag first, then what is wrong and what to do.
    """
