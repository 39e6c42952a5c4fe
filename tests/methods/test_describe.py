"""Methods described from their source, for help, are the methods that are imported."""

import dataclasses
import subprocess
import sys

import pytest

from noneg.errors import NonegError
from noneg.methods import Definition, describe_method, find_method, list_methods


def parts(definition: Definition) -> dict[str, object]:
    """Everything but the identity of the dataclass, as plain values."""
    return {
        "name": definition.name,
        "module": definition.module,
        "summary": definition.summary,
        "traits": definition.traits,
        "docstring": definition.options.__doc__,
        "fields": [
            (field.name, field.type, field.default)
            for field in dataclasses.fields(definition.options)
        ],
        "recipes": {
            name: dataclasses.asdict(recipe) for name, recipe in definition.recipes.items()
        },
    }


@pytest.mark.parametrize("name", list_methods())
def test_the_description_is_the_definition(name: str) -> None:
    described = describe_method(name)
    assert described.summary
    assert parts(described) == parts(find_method(name))


def test_describing_imports_no_torch() -> None:
    program = (
        "import sys; from noneg.methods import describe_method, list_methods; "
        "[describe_method(name) for name in list_methods()]; "
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["vicregs", "base", "recipe", "noneg.methods"])
def test_what_is_no_method_gets_the_same_error(name: str) -> None:
    with pytest.raises(NonegError) as described:
        describe_method(name)
    with pytest.raises(NonegError) as found:
        find_method(name)
    assert str(described.value) == str(found.value)
