"""`noneg train`: from arguments to a config, and from there to a run."""

import argparse
import dataclasses
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from noneg.errors import NonegError
from noneg.files import read_fields
from noneg.methods import describe_method
from noneg.methods.recipe import ADAPT
from noneg.training.config import (
    LENGTHS,
    TrainConfig,
    config_from_namespace,
    explain,
    make_parser,
    set_aside_other_lengths,
    settings_to_continue,
)

_SWITCHES = [field.name for field in dataclasses.fields(TrainConfig) if field.type is bool]
# They take no value.
_PRINTING = ("help", "print_config", "views.help")


def help_parser(arguments: Sequence[str] = ()) -> ArgumentParser:
    """The parser with the defaults of the method, recipe and data in `arguments`, for its help.

    Raises:
        NonegError: there is no such method, recipe or file of settings.
    """
    flags = _with_former_settings(_normalize(arguments))
    return make_parser(*_choice(flags), find=describe_method)


def run(arguments: Sequence[str]) -> None:
    """Train, or finish a stopped run.

    Raises:
        NonegError: a setting does not exist, or it or the data cannot be used.
    """
    if "-h" in arguments or "--help" in arguments:
        help_parser(arguments).print_help()
        return
    directory = parse_resume(arguments)
    config = parse_train(arguments) if directory is None else None
    from noneg.training.run import resume, start

    if directory is not None:
        resume(directory, progress=True)
    if config is not None:
        start(config, progress=True, command=shlex.join(["noneg", "train", *arguments]))


def parse_resume(arguments: Sequence[str]) -> Path | None:
    """The run of `--resume RUN`. Other settings may not be given: a resumed run keeps its own."""
    if not any(each.partition("=")[0] == "--resume" for each in arguments):
        return None
    name, _, run = arguments[0].partition("=")
    rest = arguments[1:] if run else arguments[2:]
    run = run or (arguments[1] if len(arguments) > 1 else "")
    if name != "--resume" or rest or not run:
        raise NonegError("--resume RUN stands alone: a resumed run keeps its settings")
    return Path(run)


def parse_train(arguments: Sequence[str]) -> TrainConfig:
    """Flags override a YAML file, the file a run that is continued, and this run the recipe.

    Raises:
        NonegError: a flag does not exist, or its value cannot be used.
    """
    flags = _with_former_settings(_normalize(arguments))
    parser = make_parser(*_choice(flags))
    try:
        return config_from_namespace(parser.parse_args(_with_one_length(flags)))
    except (ArgumentError, argparse.ArgumentError) as error:
        raise NonegError(f"{explain(error)}; noneg train --help lists the settings") from None


def _normalize(arguments: Sequence[str]) -> list[str]:
    """Write each argument as --name_of_setting=value: DATA, switches and several loggers too."""
    flags: list[str] = []
    words: list[str] = []
    loggers: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("-") or argument == "-":
            words.append(argument)
            continue
        given, equals, value = argument.partition("=")
        name = given.lstrip("-").replace("-", "_")
        following = arguments[position] if position < len(arguments) else None
        if name in _PRINTING or not name:
            flags.append(f"--{name}{equals}{value}")
        elif name.startswith("no_") and name[3:] in _SWITCHES:
            flags.append(f"--{name[3:]}=false")
        elif name in _SWITCHES and not equals and following not in ("true", "false"):
            flags.append(f"--{name}=true")
        elif not equals and following is None:
            raise NonegError(f"{argument} needs a value; noneg train --help lists the settings")
        else:
            if not equals:
                value = str(following)
                position += 1
            if name == "logger" and not value.startswith("["):
                loggers += value.split(",")
            else:
                flags.append(f"--{name}={value}")
    if len(words) > 1:
        raise NonegError(f"one DATA, not {len(words)}: {' '.join(words)}")
    if loggers:
        flags.append(f"--logger={json.dumps(list(dict.fromkeys(loggers)))}")
    flags += [f"--data={word}" for word in words]
    # The file comes first, so that flags override it.
    return sorted(flags, key=lambda each: not each.startswith("--config="))


def _values(flags: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (each[2:].partition("=") for each in flags)]


def _with_former_settings(flags: list[str]) -> list[str]:
    """Put the settings of the run in --continue-from first, so that all others override them."""
    values = dict(_values(flags))
    if (run := values.get("continue_from")) is None:
        return flags
    files = [value for name, value in _values(flags) if name == "config"]
    given = {name: value for file in files for name, value in _read(file).items()} | values
    settings_to_continue(run, given)
    # It imports numpy, for which `noneg train --help` should not wait.
    from noneg.records.directory import RunDirectory

    # The first epoch is that of the former run, and not of the one that continues it.
    return [f"--config={RunDirectory(Path(run)).config_file}", "--first_epoch=null", *flags]


def _with_one_length(flags: list[str]) -> list[str]:
    """Where a file or the flags say how long to train, unset what they override."""
    ordered: list[str] = []
    for each in flags:
        ordered.append(each)
        if each.startswith("--config="):
            ordered += _unset(set_aside_other_lengths(_read(each.partition("=")[2])))
    given = {
        name: value
        for name, value in _values(flags)
        if name in LENGTHS and value not in ("null", "None")
    }
    return [*ordered, *_unset(set_aside_other_lengths(given))]


def _unset(names: Iterable[str]) -> list[str]:
    return [f"--{name}=null" for name in names]


def _read(file: str) -> dict[str, Any]:
    """The settings in a file that --config names."""
    try:
        return read_fields(Path(file))
    except OSError as error:
        raise NonegError(f"--config {file}: {error.strerror}") from None
    except ValueError as error:
        raise NonegError(f"--config {file} is not YAML of noneg's: {error}") from None


def _choice(flags: list[str]) -> tuple[str, str, str]:
    """Method, recipe and data, which decide the other defaults."""
    given: dict[str, str] = {}
    for name, value in _values(flags):
        settings = _read(value) if name == "config" else {name: value}
        given |= {each: str(setting) for each, setting in settings.items()}
    begins = given.get("start", "None") not in ("None", "null")
    return (
        given.get("method", TrainConfig.method),
        given.get("recipe", ADAPT if begins else TrainConfig.recipe),
        given.get("data", TrainConfig.data),
    )
