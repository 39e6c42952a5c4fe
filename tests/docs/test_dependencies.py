"""The page of dependencies lists what is installed, with its lowest version."""

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "dependencies.md"
FOR_DEVELOPERS = ("test", "lint", "docs")


def split(requirement: str) -> tuple[str, str]:
    found = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?(?:>=([\d.]+))?", requirement)
    assert found is not None, requirement
    return found[1], found[2] or ""


def test_the_page_of_dependencies_is_that_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    expected = {("", *split(each)) for each in project["dependencies"]}
    for extra in extras.keys() - {*FOR_DEVELOPERS}:
        expected |= {(extra, *split(each)) for each in extras[extra]}
    rows = re.findall(r"^\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    listed = set()
    for first, *others in cells:
        if first in extras:
            listed.add((first, others[0], others[1]))
        elif first not in ("package", "extra") and not first.startswith("-"):
            listed.add(("", first, others[0]))
    assert listed == expected
    page = PAGE.read_text(encoding="utf-8")
    developers = {split(each)[0] for extra in FOR_DEVELOPERS for each in extras[extra]}
    assert [name for name in sorted(developers) if name not in page] == []
