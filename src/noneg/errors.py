"""The one kind of error that is the user's to mend."""


class NonegError(Exception):
    """Bad input: one sentence that names the thing and the way out.

    The command line prints the sentence and exits with code 2, without a traceback.

    Attributes:
        is_reported: whether another process of the same run prints it.
    """

    is_reported = False


class DivergedError(NonegError):
    """The loss or the weights of a run are no longer finite: a result, where that is studied."""
