"""The model card: what the encoder is, how good it is, and how to use it."""

from collections.abc import Mapping
from typing import Any

import yaml

from noneg.encoder import EncoderInfo


def model_card(
    info: EncoderInfo,
    name: str,
    needs_noneg: bool,
    license: str | None,
    verdict: Mapping[str, Any] | None,
) -> str:
    """A README.md as the Hugging Face Hub reads it.

    Args:
        info: of the encoder.
        name: timm's name of the network.
        needs_noneg: whether timm knows the name only after `import noneg.networks.registered`.
        license: of the weights.
        verdict: of the training.
    """
    front: dict[str, Any] = {
        "tags": ["image-feature-extraction", "timm", "noneg", "self-supervised"],
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
    }
    if license:
        front["license"] = license
    first = "import timm\n" + ("import noneg.networks.registered\n" if needs_noneg else "")
    description = info.data.get("description")
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        "# Image encoder",
        f"`{name}`, trained without labels by {info.method} with noneg {info.noneg} on "
        f"{info.created}. It maps images of {info.channels} x {info.size} x {info.size} to "
        f"{info.features} features.",
        "## Training images",
        f"{_plain(description)}: {info.data.get('images', 'an unknown number of')} images."
        if description
        else "Not recorded.",
        "## How good it is",
        _scores(info.scores),
    ]
    if verdict is not None and "sentence" in verdict:
        lines.append(f"Without labels: {verdict.get('state', '?')}. {_plain(verdict['sentence'])}")
    lines += [
        "## Use it",
        "```python\n"
        f"{first}\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
        "transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))\n"
        "features = model(transform(picture).unsqueeze(0))\n```",
        "With `num_classes=10` it has a classifier to train.",
        "## License",
        license or "Not stated by whoever exported it.",
    ]
    return "\n\n".join(lines) + "\n"


def _scores(scores: Mapping[str, Any] | None) -> str:
    if not scores:
        return "There were no labels to score it with."
    lines = ["| features | nearest neighbors | linear probe |", "|---|---|---|"]
    for name, each in scores.items():
        knn, linear = each.get("knn"), each.get("linear")
        if isinstance(knn, float) and isinstance(linear, float):
            lines.append(f"| {name} | {knn:.1%} | {linear:.1%} |")
    return "\n".join(lines)


def _plain(text: object) -> str:
    """Text that is no Markdown and no HTML."""
    escaped = "".join(f"\\{each}" if each in "\\`*_[]<>#|!&" else each for each in str(text))
    return " ".join(escaped.split())
