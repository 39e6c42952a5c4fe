"""One file a method. `--method vicreg` is the module `noneg.methods.vicreg`."""

import importlib
import pkgutil
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from torch import nn

from noneg.errors import NonegError
from noneg.methods.base import Method
from noneg.methods.recipe import Recipe

FORMER_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "directcopy": ("directpred", {"predictor": "copy"}),
}
"""Former name of a method -> the method that it is an option of now, and that option's value."""


def list_methods() -> list[str]:
    """The names of the built-in methods, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name not in ("base", "recipe")
    )


@dataclass(frozen=True)
class Definition:
    """What a method's module holds: its class, its options' dataclass and its recipes."""

    name: str
    method: type[Method]
    options: type
    recipes: dict[str, Recipe]
    summary: str

    def recipe(self, name: str) -> Recipe:
        """One recipe by name; NonegError lists the names where there is none such."""
        if name not in self.recipes:
            raise NonegError(
                f"{self.name} has no recipe '{name}'; it has: {', '.join(sorted(self.recipes))}"
            )
        return self.recipes[name]

    def build(self, backbone: nn.Module, width: int, options: object) -> Method:
        """The method on a backbone of `width` features."""
        return self.method(backbone, width, options)  # type: ignore[call-arg, arg-type]


def find_method(name: str) -> Definition:
    """Load a method by its name here, or somebody else's by its dotted path.

    Raises:
        NonegError: there is no such module, or it does not hold what a method's module must.
    """
    if name in FORMER_METHODS:
        name, options = FORMER_METHODS[name]
        definition = find_method(name)
        recipes = {
            each: replace(recipe, options=replace(recipe.options, **options))  # type: ignore[type-var]
            for each, recipe in definition.recipes.items()
        }
        return replace(definition, recipes=recipes)
    path = name if "." in name else f"noneg.methods.{name}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        close = get_close_matches(name, list_methods(), n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise NonegError(
            f"no method '{name}'{meant}; there are: {', '.join(list_methods())}; "
            "a method of your own goes by its dotted path, as in my_package.my_method"
        ) from None
    return _read_definition(name, module)


def _read_definition(name: str, module: ModuleType) -> Definition:
    methods = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value is not Method
    ]
    options, recipes = getattr(module, "Options", None), getattr(module, "RECIPES", None)
    if len(methods) != 1 or not isinstance(options, type) or not isinstance(recipes, dict):
        raise NonegError(
            f"{module.__name__} is not a method: it must hold one subclass of "
            "noneg.methods.base.Method, a dataclass Options and a dict RECIPES"
        )
    summary = (module.__doc__ or "").strip().split("\n")[0]
    return Definition(name.rpartition(".")[2], methods[0], options, recipes, summary)
