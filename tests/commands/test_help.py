"""Help is fast and spelled with hyphens, and every argument reaches its command."""

import argparse
import inspect
import re
import subprocess
import sys
from importlib import import_module

import pytest

import noneg
from noneg.cli import HELP, PARSERS, main
from noneg.commands.train import help_parser

PROGRAM = """
import sys
from noneg.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as stop:
    code = stop.code
imported = sorted(set(sys.argv[1].split(",")) & set(sys.modules))
sys.exit(code or (f"imported {imported}" if imported else 0))
"""
HEAVY = "torch,numpy,lightning_fabric,pytorch_lightning,timm"


def output_without(modules: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, modules, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", PARSERS)
def test_the_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    modules = HEAVY if command == "train" else f"{HEAVY},jsonargparse,yaml"
    assert f"noneg {command}" in output_without(modules, command, "--help")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_overview_and_the_version_import_no_library(argument: str) -> None:
    printed = output_without(f"{HEAVY},jsonargparse,yaml", argument)
    assert printed in (HELP, f"noneg {noneg.__version__}\n")


def test_listing_methods_imports_nothing_heavy() -> None:
    assert "arXiv 2105.04906" in output_without(HEAVY, "list", "methods")


def test_the_overview_fits_one_screen_and_names_every_command() -> None:
    assert HELP.count("\n") <= 24
    assert max(map(len, HELP.splitlines())) <= 100
    # In its own line, or after a "|" or a ";" in another's.
    assert all(re.search(rf"(?m)(^  |[|;] ){command} ", HELP) for command in PARSERS)


@pytest.mark.parametrize("command", PARSERS)
def test_flags_have_hyphens_and_a_help_text(command: str) -> None:
    parser = PARSERS[command]()
    assert not re.search(r"--[\w.]*_", parser.format_help())
    for action in parser._actions:
        assert action.help, action.dest
        assert all("_" not in option for option in action.option_strings)


@pytest.mark.parametrize("command", [name for name in PARSERS if name != "train"])
def test_the_arguments_are_those_of_the_command(command: str) -> None:
    names = {each.dest for each in PARSERS[command]()._actions} - {"help"}
    taken = inspect.signature(import_module(f"noneg.commands.{command}").run).parameters
    named = {each.name for each in taken.values() if each.kind is each.KEYWORD_ONLY}
    open_ended = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    assert named == names or (open_ended and named < names)


def test_the_help_of_train_has_the_defaults_of_the_chosen_method(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "folder", "--method", "byol", "--recipe=paper", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--options.tau-constant {true,false}" in shown
    assert "passes over the images. (int; default: 1000)" in shown
    assert "--optimizer {adamw,muon,sgd,lars,larc} name of the optimizer; muon is" in shown
    assert "--options.projector [ITEM,...] widths" in shown
    assert "(list of int; default: [4096, 256])" in shown


def test_both_spellings_are_parsed_by_the_parser_itself() -> None:
    parser = help_parser()
    assert isinstance(parser, argparse.ArgumentParser)
    hyphens = parser.parse_args(["--batch-size=8", "--options.projector=[8,8]"])
    assert hyphens == parser.parse_args(["--batch_size=8", "--options.projector=[8,8]"])
    assert hyphens.batch_size == 8
