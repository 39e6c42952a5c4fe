"""`noneg list`: the methods and backbones that can be chosen."""

from noneg.errors import NonegError
from noneg.methods import describe_method, list_methods


def run(*, kind: str, pattern: str) -> None:
    """Print one name per line: "methods" with their kind and a summary, or the "backbones".

    Args:
        kind: "methods" or "backbones".
        pattern: what the names of the backbones must match.

    Raises:
        NonegError: no backbone matches.
    """
    if kind == "methods":
        for name in list_methods():
            method = describe_method(name)
            print(f"{name:14} {method.traits or ''!s:40} {method.summary}")
        return
    # timm takes seconds to import.
    from noneg.networks.backbones import list_backbones

    names = list_backbones(pattern)
    if not names:
        raise NonegError(f"no backbone matches '{pattern}'; noneg list backbones shows all")
    print("\n".join(names))
