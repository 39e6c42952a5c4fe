"""Errors that the user can fix."""


class NonegError(Exception):
    """Bad input: the message is one sentence that names the problem and the way out.

    The command line prints the sentence without a traceback and exits with code 2.

    Attributes:
        is_reported: whether another process of the same run prints it.
    """

    is_reported = False


class MachineError(NonegError):
    """A fault of the disk, the network or the memory, and not of the input.

    Its cause, if it has one, is the system's error. During a run, `noneg.training.faults` says what
    is safe.
    """


class DivergedError(NonegError):
    """The loss or the weights of a run are no longer finite. Studies count this as a result."""


def printable(name: str) -> str:
    """The name on one line, for terminals, pages and tables.

    Undecodable bytes become escapes, and so does what would steer a terminal (ANSI sequences), end
    the line, or let text read from right to left.
    """
    return name.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode("utf-8")


_ESCAPES = {
    number: repr(chr(number))[1:-1] if number < 256 else f"\\u{number:04x}"
    for number in (
        *range(32),
        *range(127, 160),
        *(0x061C, 0x200E, 0x200F),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}
