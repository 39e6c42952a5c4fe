"""One file per method. `--method vicreg` is the module `noneg.methods.vicreg`."""

import ast
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

from noneg.errors import NonegError
from noneg.methods.recipe import ADAPT, Recipe, adapted
from noneg.methods.traits import Traits

if TYPE_CHECKING:
    import torch.nn

    import noneg.methods.base

# What the definitions of options and recipes may use. None of these modules imports torch.
_LIGHT = (
    *("dataclasses", "math", "typing", "noneg.errors"),
    *("noneg.methods.limits", "noneg.methods.recipe", "noneg.methods.traits"),
)

FORMER_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "directcopy": ("directpred", {"predictor": "copy"}),
}
"""Former name of a method -> the method that it is an option of now, and that option's value."""


def list_methods() -> list[str]:
    """The names of the built-in methods, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name not in ("base", "limits", "recipe", "traits")
    )


@final
@dataclass(frozen=True)
class Definition:
    """What a method's module holds.

    Args:
        name: last part of the module's path.
        module: the module's path.
        options: the dataclass of the method's own settings.
        recipes: suggested settings by name.
        summary: first line of the module's docstring.
        traits: what kind of method it is; a module may leave it out.
        failure: the method's own kind of failure in a row of metrics.csv, from the row and the
            options; None if it has none.
        causes: sentences on settings that may have led to a verdict's state, from the state, the
            options and the batch size.
    """

    name: str
    module: str
    options: type[Any]
    recipes: dict[str, Recipe]
    summary: str
    traits: Traits | None = None
    failure: "Callable[[Mapping[str, float], Any], noneg.methods.base.Failure | None] | None" = None
    causes: Callable[[str, Any, int | None], Iterable[str]] | None = None

    def recipe(self, name: str) -> Recipe:
        """One recipe by name.

        Raises:
            NonegError: there is no such recipe; it lists the others.
        """
        if name == ADAPT and name not in self.recipes and "small" in self.recipes:
            return adapted(self.recipes["small"])
        if name not in self.recipes:
            there = sorted({*self.recipes, ADAPT})
            raise NonegError(f"{self.name} has no recipe '{name}'; it has: {', '.join(there)}")
        return self.recipes[name]

    def build(
        self, backbone: "torch.nn.Module", width: int, options: object
    ) -> "noneg.methods.base.Method":
        """The method on a backbone of `width` features."""
        (method,) = _methods_in(importlib.import_module(self.module))
        return method(backbone, width, options)  # type: ignore[call-arg, arg-type]


def find_method(name: str) -> Definition:
    """Import a built-in method by its name, or any other by its dotted path.

    The name may be from a file of settings, so a module runs only if its source has what a method's
    module must have.

    Raises:
        NonegError: there is no such module, or it does not hold what a method's module must.
    """
    if name in FORMER_METHODS:
        name, options = FORMER_METHODS[name]
        return _with_options(find_method(name), options)
    path = name if "." in name else f"{__name__}.{name}"
    try:
        if path not in sys.modules and not _may_be_a_method(path):
            raise _not_a_method(path)
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        close = get_close_matches(name, list_methods(), n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise NonegError(
            f"no method '{name}'{meant}; there are: {', '.join(list_methods())}; for a method of "
            "your own give the dotted path of its module, as in my_package.my_method"
        ) from None
    settings, recipes = getattr(module, "Options", None), getattr(module, "RECIPES", None)
    complete = isinstance(settings, type) and isinstance(recipes, dict)
    if not complete or len(_methods_in(module)) != 1:
        raise _not_a_method(path)
    return _definition(path, module.__doc__, vars(module))


def _may_be_a_method(path: str) -> bool:
    """Whether the source of a module defines or imports Options and RECIPES; it is not run.

    Raises:
        ModuleNotFoundError: there is no source.
    """
    first, *others = path.split(".")
    # Finding the first one imports nothing, unlike finding one within a package.
    spec = find_spec(first) if all(map(str.isidentifier, (first, *others))) else None
    full = first
    for name in others:
        full = f"{full}.{name}"
        inside = None if spec is None else spec.submodule_search_locations
        spec = None if inside is None else PathFinder.find_spec(full, list(inside))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ModuleNotFoundError(f"no module {path}", name=path)
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return False
    return {"Options", "RECIPES"} <= {name for node in tree.body for name in _names_in(node)}


def _names_in(node: ast.stmt) -> list[str]:
    match node:
        case ast.ImportFrom(names=names):
            return [each.asname or each.name for each in names]
        case ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for each in targets if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _not_a_method(path: str) -> NonegError:
    return NonegError(
        f"{path} is not a method: it must hold one subclass of noneg.methods.base.Method, a "
        "dataclass Options and a dict RECIPES"
    )


def describe_method(name: str) -> Definition:
    """The definition of a method for help texts, without importing torch if it is built in.

    The docstring, `Options` and `RECIPES` are run by themselves, from the module's source. So these
    options are another class than the module's: to build a method, use `find_method`.

    Raises:
        NonegError: see `find_method`.
    """
    if name not in list_methods():
        return find_method(name)
    file = Path(__file__).with_name(f"{name}.py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = ast.Module([each for each in tree.body if _is_light(each)], type_ignores=[])
    # jsonargparse imports the module that a class says it is from: not the method's.
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(parts, file, "exec"), names)
    return _definition(f"{__name__}.{name}", ast.get_docstring(tree, clean=False), names)


def _is_light(node: ast.stmt) -> bool:
    match node:
        case ast.ImportFrom(module=module):
            return module in _LIGHT
        case ast.ClassDef(name="Options"):
            return True
        case ast.Assign(targets=[ast.Name(id="RECIPES" | "TRAITS")]):
            return True
    return False


def _definition(path: str, docstring: str | None, names: dict[str, Any]) -> Definition:
    summary = (docstring or "").strip().split("\n")[0]
    return Definition(
        path.rpartition(".")[2],
        path,
        names["Options"],
        names["RECIPES"],
        summary,
        names.get("TRAITS"),
        names.get("failure"),
        names.get("causes"),
    )


def _with_options(definition: Definition, options: dict[str, Any]) -> Definition:
    recipes = {
        name: replace(recipe, options=replace(recipe.options, **options))  # type: ignore[type-var]
        for name, recipe in definition.recipes.items()
    }
    return replace(definition, recipes=recipes)


def _methods_in(module: ModuleType) -> list[type["noneg.methods.base.Method"]]:
    from noneg.methods.base import Method

    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value is not Method
    ]
