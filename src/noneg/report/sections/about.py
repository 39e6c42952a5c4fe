"""Where the run comes from: commands, images, machine, encoder and settings."""

import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from noneg.encoder import EncoderInfo
from noneg.records.contents import RunFiles
from noneg.records.directory import RunDirectory
from noneg.report.html import Section
from noneg.report.numbers import duration


def about_section(run: RunFiles, info: EncoderInfo | None) -> Section:
    """What is missing in the run's directory, then all that is known of its origin, in tables."""
    tables = [
        ("Images", _images(run, info)),
        ("Machine", _machine(run, info)),
        ("Encoder", _encoder(info) if info is not None else {}),
    ]
    blocks = "".join(
        f"<div><h3>{title}</h3>{_table(values)}</div>" for title, values in tables if values
    )
    missing = (
        f'<p class="missing">Not in this run\'s directory: {escape("; ".join(run.missing))}.</p>'
        if run.missing
        else ""
    )
    settings = (
        f"<details><summary>All settings (config.yaml)</summary>{_table(flat(run.settings))}"
        "</details>"
        if run.settings
        else ""
    )
    body = f'{missing}{_commands(run)}<div class="thirds">{blocks}</div>{settings}'
    return Section("about", "This run", "", body)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, as on the command line."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _commands(run: RunFiles) -> str:
    """How the run was started, if it is recorded, and how to repeat it."""
    html = ""
    started = run.provenance.get("command")
    if isinstance(started, str) and started and not _made_up(started, run.directory):
        html += f"<p>Started as</p>{_code(started)}"
    if former := _former_runs(run.provenance.get("origin")):
        html += f"<p>It continues {escape(', which continued '.join(former))}.</p>"
    if run.settings:
        repeat = ["noneg", "train", "--config", str(RunDirectory(run.directory).config_file)]
        html += f"<p>To repeat it</p>{_code(shlex.join(repeat))}"
    return html


def _former_runs(origin: object) -> list[str]:
    """The runs whose training this one continues, the latest first."""
    if not isinstance(origin, Mapping):
        return []
    steps = origin.get("steps")
    took = f" ({steps:,} steps)" if isinstance(steps, int) else ""
    return [f"{origin.get('run')}{took}", *_former_runs(origin.get("origin"))]


def _made_up(command: str, directory: Path) -> bool:
    """Version 0.1.0 recorded a command that repeats the run instead of the one that was typed."""
    try:
        *words, config = shlex.split(command)
    except ValueError:
        return False
    own = RunDirectory(directory.resolve()).config_file
    return words == ["noneg", "train", "--config"] and (
        Path(config).name == own.name and Path(config).absolute().parent.name == own.parent.name
    )


def _images(run: RunFiles, info: EncoderInfo | None) -> dict[str, Any]:
    recorded = run.provenance.get("data")
    if isinstance(recorded, Mapping):
        return dict(recorded)
    return dict(info.data) if info is not None else {}


def _machine(run: RunFiles, info: EncoderInfo | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if (started := run.provenance.get("started")) is not None:
        facts["started"] = str(started).replace("T", " ")
    if run.seconds is not None:
        facts["training"] = duration(run.seconds)
    if (hardware := run.provenance.get("hardware")) is not None:
        facts["hardware"] = hardware
    versions = run.provenance.get("versions")
    if isinstance(versions, Mapping):
        facts.update({str(name): version for name, version in versions.items()})
    elif info is not None:
        facts["noneg"] = info.noneg
    return facts


def _encoder(info: EncoderInfo) -> dict[str, Any]:
    return {
        "backbone": info.backbone,
        "features": info.features,
        "images": f"{info.channels} x {info.size} x {info.size}",
        "made": info.created,
    }


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name).replace("_", " "))}</th>'
        f"<td>{escape(_shown(value))}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="plain">{rows}</table>'


def _shown(value: Any) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)
