"""The command-line reference, written from the parsers at each build.

The page `reference/command-line` ends with what this module appends to it: each command's usage and
flags, then each method's options beside their values in both recipes.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from noneg import cli
from noneg.methods import find_method, list_methods
from noneg.training.config import make_parser

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE = "reference/command-line"
_LEFT_OUT = ("--help", "--print_config", "--options")


def setup(app: "Sphinx") -> dict[str, Any]:
    """Append the generated text to the page's own."""
    app.connect("source-read", _append)
    return {"parallel_read_safe": True}


def _append(app: "Sphinx", page: str, source: list[str]) -> None:
    if page == PAGE:
        source[0] += "\n" + "\n".join(reference())


def reference() -> Iterator[str]:
    """The reference as lines of Markdown."""
    for name, make in parsers().items():
        yield from _command(name, make())
    yield from ["## Options of the methods", ""]
    yield "`--options.NAME VALUE`, with the chosen method's options:"
    yield ""
    for name in list_methods():
        yield from _options(name)


def parsers() -> dict[str, Callable[[], argparse.ArgumentParser]]:
    """A parser for each command, in the order of `noneg --help`."""
    declared = getattr(cli, "PARSERS", None)
    return declared or {name: lambda name=name: _captured(name) for name in cli.COMMANDS}


def _captured(command: str) -> argparse.ArgumentParser:
    """The parser that a command builds inside its own function."""
    if command == "train":
        return make_parser()

    class Captured(Exception):  # noqa: N818
        """Carries the parser out of the command."""

    def capture(parser: argparse.ArgumentParser, *_: Any) -> None:
        raise Captured(parser)

    cli._Parser.parse_args = capture
    try:
        cli.COMMANDS[command]([])
    except Captured as captured:
        return captured.args[0]
    finally:
        del cli._Parser.parse_args
    raise AssertionError(f"noneg {command} parses no arguments")


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from [f"## `noneg {name}`", "", parser.description or "", ""]
    if name == "train":
        usage = "noneg train [DATA] [--setting VALUE ...]"
    else:
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield from ["```text", usage, "```", "", "| argument | meaning |", "|---|---|"]
    for action in parser._actions:
        shown = _shown(action)
        # The methods' options have tables of their own.
        if shown and not shown.startswith("--options."):
            yield f"| `{_cell(shown)}` | {_cell(_meaning(action))} |"
    yield ""


def _shown(action: argparse.Action) -> str:
    flags = [flag for flag in action.option_strings if flag.startswith("--")]
    if not action.option_strings:
        return str(action.metavar or action.dest)
    if not flags or flags[-1] in _LEFT_OUT or flags[-1].endswith(".help"):
        return ""
    # jsonargparse's "--views+" appends; noneg takes dashes for its underscores.
    flag = flags[-1].removesuffix("+").replace("_", "-")
    value = action.metavar if isinstance(action.metavar, str) else ""
    return f"{flag} {value}" if value.isupper() else flag


def _meaning(action: argparse.Action) -> str:
    text = action.help or ""
    if "default" in text or action.default in (None, argparse.SUPPRESS) or action.const is True:
        return text
    return f"{text} (default: {_value(action.default)})"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _options(method: str) -> Iterator[str]:
    definition = find_method(method)
    small, paper = (definition.recipe(name).options for name in ("small", "paper"))
    meanings = {
        action.dest.removeprefix("options."): action.help or ""
        for action in make_parser(method)._actions
        if action.dest.startswith("options.")
    }
    fields = [field.name for field in dataclasses.fields(definition.options)]
    if not fields:
        return
    yield from [f"### {method}", "", definition.summary, ""]
    yield from ["| option | meaning | small | paper |", "|---|---|---|---|"]
    for name in fields:
        values = (f"`{_value(getattr(options, name))}`" for options in (small, paper))
        yield f"| `{name}` | {_cell(meanings.get(name, ''))} | {' | '.join(values)} |"
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
