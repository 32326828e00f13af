"""The one exception that is meant for the user's eyes."""


class HarnessError(Exception):
    """An expected failure: bad input, a missing file, a wrong name.

    The message names the value found, what was expected, and the command or link that mends it.
    The command line prints it without a traceback and exits with 1.
    """
