"""Everything that decides a run, typed; the command line's flags and YAML files come from it."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from noneg.errors import NonegError
from noneg.methods import Definition, find_method
from noneg.networks.norms import Norm
from noneg.training.loggers import LoggerName
from noneg.views import POLICIES, Policy, View
from noneg.views.policy import resolve_policy, view_from_settings

# As many passes over the built-in images as two cores make in about two minutes, and views that fit
# them: their colors say nothing of their class.
_SHAPES = {"epochs": 24, "views": "outline"}

# Not part of what a run is: a repeated run gets a directory of its own.
_NOT_SAVED = ("out",)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. Defaults come from the method's recipe where it has one.

    Args:
        data: a folder, a .npy or .npz file, "shapes" (built in) or a torchvision name ("cifar10").
        method: a name from `noneg list methods`, or the dotted path of a module of your own.
        recipe: "small" suits small data, small batches and short runs; "paper" is the authors'.
        options: the method's own settings.
        out: directory of the run; the next free one under runs/ by default.
        eval_data: labeled images to score the encoder on; never trained on.
        backbone: a name from `noneg list backbones`; "auto" takes small_resnet up to 64 px and on
            CPUs, else resnet18.
        size: side of the views in pixels; 32 or 64 by default, by the size of the images.
        channels: 1 or 3 (arrays: any number); from the images by default.
        strict: stop at the first unreadable image instead of skipping it.
        cache: where decoded images are kept: in "memory", on "disk" in the run's directory, or
            "none", decoded again in every epoch; "auto" takes the first that has room.
        epochs: passes over the images.
        batch_size: images a step, over all devices; the recipe's at most, fewer for few images.
        chunk_size: images that a device embeds at a time, for the gradient of the whole batch in
            the memory of so many; all at once by default.
        norm: "batch" leaves the networks' BatchNorm as it is, "group" puts GroupNorm in its place,
            "frozen" measures its statistics before the first step and keeps them.
        optimizer: the update rule.
        learning_rate: for a batch of 256, scaled in proportion to the batch.
        weight_decay: on weights; never on biases and norms.
        bias_rate: learning rate of biases and norms, in multiples of the weights'.
        warmup_epochs: of linear warm-up, before the cosine.
        views: a policy (byol, barlow_twins, vicreg, simclr, simsiam, multi_crop, gentle, outline,
            dihedral, weak), or a list of views and their settings.
        num_views: views of each image, the first of the policy, which is repeated as needed; by
            default as many as it has: two, or eight of multi_crop.
        seed: of weights, order and views.
        accelerator: "auto", "cpu", "gpu" ... as Lightning names them.
        devices: how many, or which.
        num_nodes: machines.
        strategy: "auto", "ddp", "fsdp" ... as Lightning names them.
        precision: "auto" chooses by hardware; "32-true", "bf16-mixed" ... as Lightning names them.
        evaluate: score the encoder when it is trained.
        evaluation_images: at most so many training and test images are used for scoring.
        knn_every: score by nearest neighbors every so many epochs while training; 0 for never.
        log_every: steps between two rows of metrics.csv.
        checkpoint_every: steps between two checkpoints.
        on_collapse: what happens where the embeddings collapse or explode: "warn" and go on;
            "stop", with all that was made so far; or "rollback" to the last healthy weights and go
            on from there at half the learning rate, three times at most.
        report: write report.html when the run is done.
        logger: also send the metrics to these: tensorboard, wandb, mlflow.
    """

    data: str = "shapes"
    method: str = "vicreg"
    recipe: str = "small"
    options: Any = None
    out: str | None = None
    eval_data: str | None = None
    backbone: str = "auto"
    size: int | None = None
    channels: int | None = None
    strict: bool = False
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    epochs: int = 100
    batch_size: int | None = None
    chunk_size: int | None = None
    norm: Norm = "batch"
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    bias_rate: float = 1.0
    warmup_epochs: float = 1.0
    views: str | list[View] = "gentle"
    num_views: int | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    evaluate: bool = True
    evaluation_images: int = 10_000
    knn_every: int = 0
    log_every: int = 10
    checkpoint_every: int = 100
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    report: bool = True
    logger: tuple[LoggerName, ...] = ()

    def __post_init__(self) -> None:
        lowest = {
            "epochs": 1,
            "batch_size": 2,
            "chunk_size": 2,
            "size": 8,
            "channels": 1,
            "num_views": 2,
            "num_nodes": 1,
            "evaluation_images": 10,
            "knn_every": 0,
            "log_every": 1,
            "checkpoint_every": 1,
            "weight_decay": 0,
            "bias_rate": 0,
            "warmup_epochs": 0,
            "learning_rate": 0,
            "seed": 0,
        }
        for name, limit in lowest.items():
            value = getattr(self, name)
            if value is not None and not value >= limit:
                raise NonegError(f"--{name} must be at least {limit}: {value}")
        if isinstance(self.views, str) and self.views not in POLICIES:
            raise NonegError(f"no views '{self.views}'; there are: {', '.join(POLICIES)}")
        if not isinstance(self.views, str) and len(self.views) * (self.num_views or 1) < 2:
            raise NonegError(
                f"--views lists {len(self.views)} views and every image needs two to compare: "
                "list another, or give --num_views 2"
            )

    def policy(self, size: int) -> Policy:
        """The views that are drawn at this size, `num_views` of them."""
        return resolve_policy(self.views, size, self.num_views)


def settings_for(definition: Definition, recipe: str, data: str | None) -> dict[str, Any]:
    """The defaults of TrainConfig under a method's recipe."""
    settings = dict(vars(definition.recipe(recipe)))
    settings["batch_size"] = None
    if data == "shapes" and recipe == "small":
        settings.update(_SHAPES)
    return settings


def make_config(data: object = "shapes", **settings: Any) -> TrainConfig:
    """A config from keyword settings over the method's recipe.

    Args:
        data: as TrainConfig has it; objects in memory are recorded by their type alone.
        settings: fields of TrainConfig; `options` may be a dict of some of the method's options.

    Raises:
        NonegError: a setting does not exist or cannot have this value.
    """
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(settings.keys() - known):
        raise NonegError(f"unknown setting {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    definition = find_method(settings.get("method", TrainConfig.method))
    recipe = settings.get("recipe", TrainConfig.recipe)
    described = str(data) if isinstance(data, str | Path) else f"<{type(data).__name__}>"
    defaults = settings_for(definition, recipe, described)
    options = settings.pop("options", None) or {}
    if isinstance(options, dict):
        names = {field.name for field in dataclasses.fields(definition.options)}
        if unknown := sorted(options.keys() - names):
            raise NonegError(
                f"{definition.name} has no option {unknown[0]!r}; "
                f"it has: {', '.join(sorted(names))}"
            )
        options = {**dataclasses.asdict(defaults["options"]), **options}
    # Through the parser, so that Python and the command line check values alike.
    fields = {**defaults, **settings, "options": options, "data": described}
    return config_from_dict(fields)


def make_parser(
    method: str = TrainConfig.method, recipe: str = TrainConfig.recipe, data: str | None = None
) -> ArgumentParser:
    """The parser of `noneg train` for one method: flags, YAML and help from the dataclasses."""
    definition = find_method(method)
    parser = ArgumentParser(
        prog="noneg train",
        description="Train an encoder on unlabeled images and say how good it is. "
        "A stopped run goes on with: noneg train --resume RUN",
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of settings, as runs save it"
    )
    parser.add_class_arguments(TrainConfig, skip={"options"}, as_group=False, fail_untyped=False)
    parser.add_class_arguments(definition.options, "options")
    settings = settings_for(definition, recipe, data)
    options = dataclasses.asdict(settings.pop("options"))
    parser.set_defaults(
        {**settings, **{f"options.{name}": value for name, value in options.items()}}
    )
    parser.set_defaults(method=method, recipe=recipe)
    return parser


def config_from_namespace(namespace: Namespace) -> TrainConfig:
    """The typed config of what `make_parser` parsed."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: value for name, value in vars(namespace).items() if name in fields}
    options = vars(namespace.options) if "options" in namespace else {}
    settings["options"] = find_method(namespace.method).options(**options)
    if not isinstance(settings["views"], str):
        settings["views"] = [
            view if isinstance(view, View) else View(**vars(view)) for view in settings["views"]
        ]
    return TrainConfig(**settings)


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values, as YAML has them."""
    fields = dataclasses.asdict(config)
    return {name: value for name, value in fields.items() if name not in _NOT_SAVED}


def config_from_dict(fields: dict[str, Any]) -> TrainConfig:
    """Check plain values against the types and build the config."""
    parser = make_parser(
        fields.get("method", TrainConfig.method),
        fields.get("recipe", TrainConfig.recipe),
        fields.get("data"),
    )
    plain = {
        name: dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
        for name, value in fields.items()
    }
    views = plain.get("views")
    if isinstance(views, list | tuple):
        plain["views"] = [dataclasses.asdict(view_from_settings(view)) for view in views]
    try:
        namespace = parser.parse_object(plain)
    except Exception as error:
        raise NonegError(explain(error)) from error
    return config_from_namespace(namespace)


def save_config(config: TrainConfig, path: Path) -> None:
    """Write every setting; `noneg train --config PATH` repeats the run."""
    plain = yaml.safe_dump(_plain(to_dict(config)), sort_keys=False)
    path.write_text(plain, encoding="utf-8")


def load_config(path: Path) -> TrainConfig:
    """Read what `save_config` wrote.

    Raises:
        NonegError: the file is missing, is not YAML, or has settings that do not exist.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NonegError(f"{path.parent} is not a run: it has no {path.name}") from None
    except yaml.YAMLError as error:
        raise NonegError(f"{path} is not YAML: {explain(error)}") from None
    if not isinstance(fields, dict):
        raise NonegError(f"{path} must hold settings, one 'name: value' a line")
    return config_from_dict(fields)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def explain(error: Exception) -> str:
    """The parser's error as one sentence, in the words of the command line."""
    sentence = " ".join(str(error).split())
    wrong = re.fullmatch(r'Parser key "(.+?)": Expected an? (.+?)\. Got value: (.*)', sentence)
    if wrong is None:
        return sentence
    name, wanted, value = wrong.groups()
    wanted = re.sub(r"<class '(.+?)'>", r"\1", wanted)
    wanted = re.sub(r"typing\.Literal\[(.+?)\]", r"one of \1", wanted)
    return f"--{name} wants {wanted}, not {value}"
