"""What import-linter's contracts cannot say of imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import noneg

PACKAGE = Path(noneg.__file__).parent


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, or uses as attributes of what it imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def test_only_one_module_knows_of_processes() -> None:
    knowing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.startswith("torch.distributed") for name in imported(path))
    }
    assert knowing == {"training/distributed.py"}
