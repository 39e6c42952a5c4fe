"""`noneg train`'s arguments -> a config: one flag a setting, of the chosen method and recipe."""

import argparse
import dataclasses
from pathlib import Path

import yaml
from jsonargparse import ArgumentError

from noneg.errors import NonegError
from noneg.training.config import TrainConfig, config_from_namespace, explain, make_parser

_SWITCHES = [field.name for field in dataclasses.fields(TrainConfig) if field.type is bool]


def parse_resume(arguments: list[str]) -> Path | None:
    """The run of `--resume RUN`; it stands alone, since a resumed run keeps its settings."""
    if not any(each.partition("=")[0] == "--resume" for each in arguments):
        return None
    flag, _, run = arguments[0].partition("=")
    rest = arguments[1:] if run else arguments[2:]
    run = run or (arguments[1] if len(arguments) > 1 else "")
    if flag != "--resume" or rest or not run:
        raise NonegError(
            "--resume RUN stands alone: a resumed run keeps the settings it began with"
        )
    return Path(run)


def parse_train(arguments: list[str]) -> TrainConfig:
    """Flags over a YAML file over the recipe's defaults.

    Raises:
        NonegError: a flag does not exist, or its value cannot be used.
    """
    flags = _normalize(arguments)
    method, recipe, data = _choice(flags)
    parser = make_parser(method, recipe, data)
    parser.usage = "noneg train [DATA] [--setting VALUE ...]"
    try:
        return config_from_namespace(parser.parse_args(flags))
    except (ArgumentError, argparse.ArgumentError) as error:
        raise NonegError(f"{explain(error)}; noneg train --help lists the settings") from None


def _normalize(arguments: list[str]) -> list[str]:
    """Dashes in names become underscores, bare switches true, and a bare word is DATA."""
    flags: list[str] = []
    words: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if argument in ("-h", "--help"):
            flags.append("--help")
        elif not argument.startswith("--"):
            words.append(argument)
        else:
            name, equals, value = argument.partition("=")
            name = "--" + name[2:].replace("-", "_")
            following = arguments[position] if position < len(arguments) else None
            if name.startswith("--print_config") or name == "--":
                flags.append(argument)
            elif name[5:] in _SWITCHES and name.startswith("--no_"):
                flags.append(f"--{name[5:]}=false")
            elif equals:
                flags.append(f"{name}={value}")
            elif name[2:] in _SWITCHES and following not in ("true", "false"):
                flags.append(f"{name}=true")
            elif following is None:
                raise NonegError(f"{argument} needs a value; noneg train --help lists the settings")
            else:
                flags.append(f"{name}={following}")
                position += 1
    if len(words) > 1:
        raise NonegError(f"one DATA, not {len(words)}: {' '.join(words)}")
    return flags + [f"--data={word}" for word in words]


def _choice(flags: list[str]) -> tuple[str, str, str]:
    """Method, recipe and data, which decide the other defaults, ahead of the full parse."""
    chosen = {"method": TrainConfig.method, "recipe": TrainConfig.recipe, "data": TrainConfig.data}
    values = [flag[2:].partition("=")[::2] for flag in flags if "=" in flag]
    for name, value in values:
        if name == "config":
            try:
                fields = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except OSError as error:
                raise NonegError(f"--config {value}: {error.strerror}") from None
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise NonegError(f"--config {value} is not YAML: {explain(error)}") from None
            if not isinstance(fields, dict):
                raise NonegError(f"--config {value} must hold settings, one 'name: value' a line")
            chosen.update({name: str(fields[name]) for name in chosen if name in fields})
    chosen.update({name: value for name, value in values if name in chosen})
    return chosen["method"], chosen["recipe"], chosen["data"]
