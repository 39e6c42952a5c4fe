"""Errors that the user can fix."""


class NonegError(Exception):
    """Bad input: the message is one sentence that names the problem and the way out.

    The command line prints the sentence without a traceback and exits with code 2.

    Attributes:
        is_reported: whether another process of the same run prints it.
    """

    is_reported = False


class DivergedError(NonegError):
    """The loss or the weights of a run are no longer finite. Studies count this as a result."""


def printable(name: str) -> str:
    """The name with undecodable bytes written as escapes, so that it can be printed and saved."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
