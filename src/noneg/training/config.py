"""The typed settings of a run; flags, YAML files and help are made from them.

Nothing here imports torch, so that `noneg train --help` is fast.
"""

import argparse
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from noneg.errors import NonegError
from noneg.methods import Definition, find_method
from noneg.methods.recipe import ADAPT
from noneg.networks import Norm
from noneg.views import POLICIES, Policy, View
from noneg.views.policy import Interpolation, resolve_policy, view_from_settings

LoggerName = Literal["tensorboard", "wandb", "mlflow"]

# As many epochs as two cores train on the built-in images in a minute or two. Colors say nothing
# about the class of these images, hence the views.
_SHAPES = {"epochs": 12, "views": "outline"}

# A run that is repeated from its config.yaml gets a new directory.
_NOT_SAVED = ("out",)

LENGTHS: Final = ("epochs", "steps", "minutes")
"""The settings that say how long to train; one of them has a value."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. The method's recipe sets the defaults of some of them.

    Args:
        data: a folder, a .npy or .npz file, "shapes" (built in) or a torchvision name ("cifar10").
        method: a name from `noneg list methods`, or the dotted path of your own module.
        recipe: "small" suits small data, small batches and short runs; "paper" is the authors';
            "adapt" is for known weights, and the default with `start`.
        options: settings of the method itself.
        out: directory of the run; default: a new one under runs/.
        eval_data: labeled images to score the encoder on; never used for training.
        backbone: a name from `noneg list backbones`; "auto" is small_convnet up to 64 px and on
            CPUs, and resnet18 otherwise. Or package.module:function, which returns a network of
            your own: float [B, C, S, S] -> [B, D] or [B, D, h, w].
        size: side of the encoder's images in pixels; default: that of `start`, else 32 or 64,
            depending on the images.
        mean: of each channel, for pixels in [0, 1]; default: that of `start`, else the images' own.
        std: of each channel, likewise.
        interpolation: how images are resized to `size`, "bilinear" or "bicubic"; default: that of
            `start`, else bilinear.
        view_size: side of the views in training, in pixels; default: half of `size`, and at least
            20, for small_convnet, and at least 96 for a `start` that takes any size; else `size`.
        channels: 1 or 3 (arrays: any number); default: as the images have.
        strict: stop at the first unreadable image instead of skipping it.
        cache: where decoded images are kept: in "memory"; on "disk", in the run's directory; or
            "none": they are decoded again in every epoch. "auto" is the first that has room.
        epochs: passes over the images.
        steps: steps of the optimizer, instead of epochs.
        minutes: minutes of training, instead of epochs. Some steps are timed on a copy of the
            network; then the number of steps is fixed, and config.yaml has it as `steps`. Loading
            the images, timing (a twentieth of the minutes, and at most half of one, unless four
            steps take longer), scoring and the report come on top.
        batch_size: images per step, over all devices; default: the recipe's, fewer for small sets.
        chunk_size: images that a device embeds at a time. The gradient is that of the whole batch,
            in the memory of one chunk (GradCache: Gao et al., 2101.06983); default: the whole batch
            at once.
        norm: "batch" leaves the networks' BatchNorm as it is; "group" replaces it by GroupNorm;
            "frozen" measures its statistics before the first step and keeps them.
        optimizer: name of the optimizer; muon is for convolutions, with adamw for all else; larc is
            sgd whose steps are at most 0.02 of the length of a layer's weights.
        learning_rate: for a batch of 256; it is scaled in proportion to the batch.
        weight_decay: for weights, but not for biases and norm layers.
        bias_rate: learning rate of biases and norm layers, relative to that of the weights.
        warmup_epochs: epochs of linear warm-up before the cosine schedule.
        heads_first: epochs in which only the heads learn, before the warm-up of the backbone.
        backbone_rate: learning rate of the backbone, relative to that of the heads.
        layer_decay: learning rate of each layer of the backbone, relative to that of the next one.
        freeze: the number of the backbone's first stages that are not trained; the stem is one.
        pull: how strongly the backbone is pulled back to the weights that it began with: at each
            step by the learning rate times this share of the way, as weight decay pulls to 0
            (L2-SP: Li et al. 2018, 1802.01483).
        views: a policy (byol, barlow_twins, vicreg, simclr, simsiam, multi_crop, emp_ssl, gentle,
            outline, dihedral, weak, crops), or a list of views with their settings.
        num_views: views per image: the first ones of the policy, repeated as needed; default: the
            recipe's, or as many as the policy has, which is two, eight for multi_crop, or twenty
            for emp_ssl.
        seed: decides the initial weights, the order of the images, and the views.
        continue_from: a finished run. A new run begins with all of its last weights, with a new
            optimizer and a new schedule; its settings are the defaults. (--resume finishes a
            stopped run.)
        start: known weights of the backbone, to begin a new run with: timm (the backbone's own),
            timm:NAME, local-dir:FOLDER, a file of weights, or the directory of a run or an encoder.
            The images' mean and std, and by default their size, are those of the weights.
        first_epoch: the number of the first epoch, which decides the order of the images and the
            views, as the seed does; default: 0, or the next one after the run that is continued.
        accelerator: "auto", "cpu", "gpu" ..., as in Lightning.
        devices: how many, or which ones.
        num_nodes: number of machines.
        strategy: "auto", "ddp", "fsdp" ..., as in Lightning.
        precision: "auto" depends on the hardware; "32-true", "bf16-mixed" ..., as in Lightning.
        evaluate: measure the encoder after training, and score it if there are labels.
        evaluation_images: use at most this many training and test images for scoring.
        knn_every: epochs between two scores by nearest neighbors during training; 0 for none.
        log_every: steps between two rows of metrics.csv.
        logger: where to send the metrics as well: tensorboard, wandb or mlflow, or several of them;
            default: nowhere else.
        checkpoint_every: steps between two checkpoints.
        on_collapse: what to do if the embeddings collapse or explode: "warn" and continue; "stop"
            and keep what there is; or "rollback" to the last healthy weights and continue from
            there at half the learning rate, at most three times.
        on_harm: what to do if training from a `start` made the encoder worse, by labeled images,
            or if there are none, probably did: "warn"; or "rollback" and keep the start as the
            run's encoder.
        report: write report.html at the end of the run.
    """

    data: str = "shapes"
    method: str = "vicreg"
    recipe: str = "small"
    options: Any = None
    out: str | None = None
    eval_data: str | None = None
    backbone: str = "auto"
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    view_size: int | None = None
    channels: int | None = None
    strict: bool = False
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    epochs: int | None = 100
    steps: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    chunk_size: int | None = None
    norm: Norm = "batch"
    optimizer: Literal["adamw", "muon", "sgd", "lars", "larc"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    bias_rate: float = 1.0
    warmup_epochs: float = 1.0
    heads_first: float = 0.0
    backbone_rate: float = 1.0
    layer_decay: float = 1.0
    freeze: int = 0
    pull: float = 0.0
    views: str | list[View] = "gentle"
    num_views: int | None = None
    seed: int = 0
    continue_from: str | None = None
    start: str | None = None
    first_epoch: int | None = None
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    evaluate: bool = True
    evaluation_images: int = 10_000
    knn_every: int = 0
    log_every: int = 10
    logger: tuple[LoggerName, ...] = ()
    checkpoint_every: int = 100
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    on_harm: Literal["warn", "rollback"] = "warn"
    report: bool = True

    def __post_init__(self) -> None:
        lowest = {
            "epochs": 1,
            "steps": 1,
            "first_epoch": 0,
            "batch_size": 2,
            "chunk_size": 2,
            "size": 8,
            "view_size": 8,
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
            "heads_first": 0,
            "backbone_rate": 0,
            "layer_decay": 0,
            "freeze": 0,
            "pull": 0,
            "learning_rate": 0,
            "seed": 0,
        }
        for name, limit in lowest.items():
            value = getattr(self, name)
            if value is not None and not value >= limit:
                raise NonegError(f"{flag(name)} must be at least {limit}: {value}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise NonegError(f"--minutes must be a number above 0: {self.minutes}")
        if self.std is not None and min(self.std, default=0.0) <= 0:
            raise NonegError(f"--std must be above 0: {list(self.std)}")
        if self.pull and self.start is None and self.continue_from is None:
            raise NonegError("--pull needs weights to pull to: give --start or --continue-from")
        if not set_aside_other_lengths(vars(self)):
            raise NonegError(f"give one of {', '.join(map(flag, LENGTHS))}")
        if isinstance(self.views, str) and self.views.startswith("["):
            raise NonegError(
                f"--views {self.views} is not a list of views, such as "
                f'[{{"hue": 0.0}}, {{"flip": 0.0}}]; a view has: {", ".join(_names(View))}'
            )
        if isinstance(self.views, str) and self.views not in POLICIES:
            raise NonegError(f"no views '{self.views}'; there are: {', '.join(POLICIES)}")
        if not isinstance(self.views, str) and len(self.views) * (self.num_views or 1) < 2:
            raise NonegError(
                f"--views lists {len(self.views)} views, but two are needed per image: add one, or "
                "give --num-views 2"
            )

    def policy(self, size: int) -> Policy:
        """The `num_views` views per image: of `view_size`, which is by default this size."""
        return resolve_policy(self.views, size, self.num_views, self.view_size)


def flag(name: str) -> str:
    """A setting as a flag: learning_rate -> --learning-rate."""
    return f"--{name.replace('_', '-')}"


def set_aside_other_lengths(settings: Mapping[str, Any]) -> dict[str, None]:
    """The lengths that have no value because `settings` gives another one; empty if it gives none.

    Raises:
        NonegError: it gives more than one.
    """
    given = [name for name in LENGTHS if settings.get(name) is not None]
    if len(given) > 1:
        raise NonegError(
            f"{flag(given[0])} and {flag(given[1])} both say how long to train: give one of them"
        )
    return {name: None for name in LENGTHS if given and name not in given}


def settings_for(definition: Definition, recipe: str, data: str | None) -> dict[str, Any]:
    """The settings that a recipe decides; the built-in images change some of them."""
    settings = dict(vars(definition.recipe(recipe)))
    settings["batch_size"] = None
    if data == "shapes" and recipe == "small":
        settings.update(_SHAPES)
    return settings


def make_config(data: object = None, **settings: Any) -> TrainConfig:
    """A config from keyword settings; the method's recipe fills in the others.

    With `continue_from`, the settings of that run do so.

    Args:
        data: as in TrainConfig; for an object in memory only the type is recorded. None is the
            default, "shapes" or the data of the run that is continued.
        settings: fields of TrainConfig; `options` may be a dict with some of the method's options.

    Raises:
        NonegError: a setting does not exist or cannot have this value.
    """
    known = _names(TrainConfig)
    if unknown := sorted(settings.keys() - set(known)):
        raise NonegError(f"unknown setting {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    former: dict[str, Any] = {}
    if settings.get("continue_from") is not None:
        settings["continue_from"] = str(settings["continue_from"])
        former = settings_to_continue(settings["continue_from"], settings)

    def chosen(name: str) -> Any:
        return settings.get(name, former.get(name, getattr(TrainConfig, name)))

    definition, recipe = find_method(chosen("method")), chosen("recipe")
    if settings.get("start") is not None and "recipe" not in settings:
        settings["recipe"] = recipe = ADAPT
    data = chosen("data") if data is None else data
    described = str(data) if isinstance(data, str | Path) else f"<{type(data).__name__}>"
    defaults = {**settings_for(definition, recipe, described), **former}
    options = settings.pop("options", None) or {}
    if isinstance(options, dict):
        names = _names(definition.options)
        if unknown := sorted(options.keys() - set(names)):
            raise NonegError(
                f"{definition.name} has no option {unknown[0]!r}; "
                f"it has: {', '.join(sorted(names))}"
            )
        usual = defaults["options"]
        options = {**(usual if isinstance(usual, dict) else dataclasses.asdict(usual)), **options}
    # The parser checks values from Python as it checks those from the command line.
    lengths = set_aside_other_lengths(settings)
    fields = {**defaults, **lengths, **settings, "options": options, "data": described}
    return config_from_dict(fields)


def settings_to_continue(run: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a finished run, as defaults of a run that continues it.

    Args:
        run: the directory of the finished run.
        given: the other settings, by name.

    Raises:
        NonegError: there is no such run, or `given` has another method or recipe.
    """
    # It imports numpy, for which `noneg train --help` should not wait.
    from noneg.records.directory import RunDirectory

    directory = RunDirectory(Path(run))
    former = directory.read_config()
    if former is None:
        raise NonegError(f"{run} is not a run: it has no {directory.config_file.name}")
    check_kept(given, former, run, ("method", "recipe"))
    # Only the first of two continued runs begins where this one ended.
    return {**former, "continue_from": str(run), "first_epoch": None}


KEPT: Final = ("data", "method", "recipe", "backbone", "size", "channels", "norm")
"""The settings that a run has in common with the run that it continues."""


def check_kept(
    given: Mapping[str, Any], former: Mapping[str, Any], run: str | Path, names: Iterable[str]
) -> None:
    """Compare settings with those of the run that is continued; a name may be missing in either.

    Raises:
        NonegError: one of `names` has another value.
    """
    for name in names:
        if name in given and name in former and str(given[name]) != str(former[name]):
            raise NonegError(
                f"{run} was trained with {flag(name)} {former[name]}, and a run that continues it "
                f"cannot have {given[name]}: leave {flag(name)} out"
            )


def make_parser(
    method: str = TrainConfig.method,
    recipe: str = TrainConfig.recipe,
    data: str | None = None,
    *,
    find: Callable[[str], Definition] = find_method,
) -> ArgumentParser:
    """The parser of `noneg train` for one method: flags, YAML and help from the dataclasses.

    Args:
        method: the method whose options and recipes the parser has.
        recipe: the recipe whose settings are the defaults.
        data: the built-in images have other defaults for some settings.
        find: `describe_method` is faster, and enough for help.
    """
    definition = find(method)
    parser = ArgumentParser(
        prog="noneg train",
        usage="noneg train [DATA] [--setting VALUE ...]",
        description="Train an encoder on unlabeled images, and say how good it is. "
        "Finish a stopped run with: noneg train --resume RUN. Train a finished one further, as a "
        "new run, with: noneg train --continue-from RUN --epochs 50. Begin a new run with known "
        "weights: noneg train DATA --start timm:resnet18. Switches need no value: "
        "--strict is --strict true, and --no-report is --report false.",
        formatter_class=_HelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of settings, such as a run's config.yaml"
    )
    parser.add_class_arguments(TrainConfig, skip={"options"}, as_group=False, fail_untyped=False)
    parser.add_class_arguments(definition.options, "options")
    settings = settings_for(definition, recipe, data)
    options = dataclasses.asdict(settings.pop("options"))
    parser.set_defaults(
        {**settings, **{f"options.{name}": value for name, value in options.items()}}
    )
    parser.set_defaults(method=method, recipe=recipe)
    for action in parser._actions:
        if action.dest == "help":
            continue
        # Underscores work as well; help and errors show hyphens.
        action.option_strings = [flag(action.dest)]
        parser._option_string_actions[flag(action.dest)] = action
        if action.dest == "options":
            action.help = argparse.SUPPRESS
        elif action.dest == "print_config":
            action.help, action.metavar = "print all settings as YAML and exit", ""
        elif action.dest == "logger":
            action.metavar = "NAME,..."
    return parser


@final
class _HelpFormatter(DefaultHelpFormatter):
    """Leaves out the type if the choices are shown, and the default if the help text has it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if not hasattr(action, "_typehint") or action.default == argparse.SUPPRESS:
            return str(super()._get_help_string(action))
        wanted = str(self._get_type_str(action)).replace(" | null", "")
        chosen = str(action.metavar).startswith("{") or "Literal" in wanted
        notes = [] if chosen else [_in_words(wanted)]
        default = action.default
        if isinstance(default, bool):
            notes.append(f"default: {str(default).lower()}")
        elif default not in (None, (), ""):
            notes.append(f"default: {list(default) if isinstance(default, tuple) else default}")
        return f"{action.help} ({'; '.join(notes)})" if notes else str(action.help)


def config_from_namespace(namespace: Namespace) -> TrainConfig:
    """The typed config from the values that `make_parser` parsed."""
    settings = {
        name: value for name, value in vars(namespace).items() if name in _names(TrainConfig)
    }
    options = vars(namespace.options) if "options" in namespace else {}
    settings["options"] = find_method(namespace.method).options(**options)
    if not isinstance(settings["views"], str):
        settings["views"] = [
            view if isinstance(view, View) else View(**vars(view)) for view in settings["views"]
        ]
    return TrainConfig(**settings)


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values for YAML: all settings except the run's directory."""
    fields = dataclasses.asdict(config)
    return {name: value for name, value in fields.items() if name not in _NOT_SAVED}


def config_from_dict(fields: dict[str, Any]) -> TrainConfig:
    """Check plain values against the types and build the config.

    Raises:
        NonegError: a setting does not exist or cannot have this value.
    """
    if unknown := sorted(fields.keys() - set(_names(TrainConfig))):
        # The parser's own "config" would read another file.
        raise NonegError(f"there is no setting '{unknown[0]}'")
    for name in ("method", "recipe"):
        if not isinstance(fields.get(name, ""), str):
            raise NonegError(f"{flag(name)} wants a name, not {fields[name]}")
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
    } | set_aside_other_lengths(fields)
    views = plain.get("views")
    if isinstance(views, list | tuple):
        plain["views"] = [dataclasses.asdict(view_from_settings(view)) for view in views]
    if isinstance(logger := plain.get("logger"), str):
        plain["logger"] = logger.split(",")
    try:
        namespace = parser.parse_object(plain)
    except Exception as error:
        raise NonegError(explain(error)) from error
    return config_from_namespace(namespace)


def load_config(path: Path) -> TrainConfig:
    """The config in a run's config.yaml.

    Raises:
        NonegError: the file is missing, is not YAML, or has settings that do not exist.
    """
    # It imports numpy, for which `noneg train --help` should not wait.
    from noneg.records.directory import read_settings

    fields = read_settings(path)
    if fields is None:
        raise NonegError(f"{path.parent} is not a run: it has no {path.name}")
    if unknown := sorted(fields.keys() - set(_names(TrainConfig))):
        raise NonegError(
            f"{path} has the setting '{unknown[0]}', which this noneg does not know: upgrade noneg "
            "if a newer one wrote it, or take the setting out"
        )
    return config_from_dict(fields)


def _names(settings: type) -> list[str]:
    return [field.name for field in dataclasses.fields(settings)]


def explain(error: Exception) -> str:
    """The parser's error as one sentence, with the names of flags."""
    sentence = " ".join(str(error).split())
    if unknown := re.fullmatch(r"unrecognized arguments: --([\w.-]+).*", sentence):
        return f"there is no setting {flag(unknown[1])}"
    if unknown := re.fullmatch(r"Option '(.+?)' is not accepted", sentence):
        return f"there is no setting '{unknown[1]}'"
    if unknown := re.fullmatch(r"Group 'options' does not accept option '(.+?)'", sentence):
        return f"the method has no option '{unknown[1]}'"
    if wrong := re.fullmatch(r'Parser key "(.+?)": Expected an? (.+?)\. Got value: (.*)', sentence):
        name, wanted, value = wrong.groups()
        return f"{flag(name)} wants {_in_words(wanted)}, not {value}"
    union = (
        r'Parser key "(.+?)": .*Subtypes: \[(.+)\] Errors: (.*) Given value type: .*'
        r"Given value: (.*)"
    )
    if wrong := re.fullmatch(union, sentence):
        name, types, reasons, value = wrong.groups()
        if unknown := re.search(r"Option '(.+?)' is not accepted", reasons):
            known = ", ".join(_names(View))
            return f"{flag(name)}: a view has no setting '{unknown[1]}'; it has: {known}"
        # Not at the commas within tuple[float, ...].
        parts = re.split(r", (?![^\[]*\])", types)
        wanted = [_in_words(each) for each in parts if "NoneType" not in each]
        return f"{flag(name)} wants {' or '.join(wanted)}, not {value}"
    return sentence


def _in_words(wanted: str) -> str:
    """<class 'int'> -> int; typing.Literal['a', 'b'] -> one of 'a', 'b'; tuple -> a list."""
    wanted = re.sub(r"<class '(.+?)'>", r"\1", wanted)
    wanted = re.sub(r"^tuple$", "a list", wanted)
    wanted = re.sub(r"list\[(noneg\.views\.policy\.)?View\]", "a list of views", wanted)
    wanted = re.sub(r"(typing\.)?Literal\[(.+?)\]", r"one of \2", wanted)
    wanted = re.sub(r"Optional\[(.+)\]", r"\1", wanted)
    return re.sub(r"tuple\[(.+), \.\.\.\]", r"list of \1", wanted)
