"""The command line: one parser per command. What a command does is in `noneg.commands`.

A command's module is imported after its arguments are parsed, so that help appears at once. Its
`run` takes the arguments by the names that they have in the parser.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn, cast, final

from noneg._version import __version__
from noneg.errors import NonegError, printable

HELP: Final = """\
usage: noneg COMMAND [...]; noneg COMMAND --help, noneg --version
train an encoder on your own unlabeled images, without negative pairs
  train [DATA]                    train, and say how good the encoder is
  train DATA --start timm:NAME    begin with known weights, and say whether training helped
  train --resume RUN              finish a run; --continue-from RUN trains a finished one further
  views DATA                      write a picture of the views that a run would train on
  list methods|backbones          the names that can be chosen
see how good it is
  report RUN [RUN ...]            write a page about a run, or a comparison of several
  evaluate RUN DATA               measure a run's encoder, and score it if there are labels
  rank RUN RUN ...                order runs without labels, and say how reliable the order is
use it
  search RUN DATA PICTURE ...     the images that are most similar to a picture
  duplicates RUN DATA [OTHER]     near-duplicates, within a collection or between two
  outliers | clusters RUN DATA    the images that no other resembles; groups of similar ones
  select RUN DATA --count N       which images to label first
  finetune RUN LABELED --out DIR  a classifier; predict DIR DATA --out FILE uses it
  mislabeled | curve RUN LABELED  suspected labels; accuracy against the number of labels
  embed RUN DATA --out FILE       write one embedding per image, as Parquet
  export RUN --format FORMAT      write the encoder for ONNX Runtime, timm, transformers, torch
see why it does not collapse
  study list | study NAME [DATA]  the claims that can be tested here; test those of one study

DATA is a folder of images, a .npy or .npz file, a name such as cifar10, or shapes (built in).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 130 for Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if given[0] in ("-V", "--version"):
        print(f"noneg {__version__}")
        return 0
    try:
        with redirect_stdout(cast(Any, _Harmless(sys.stdout))):
            _run(given[0], given[1:])
    except NonegError as error:
        if not error.is_reported:
            print(f"noneg: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"noneg: stopped. {printable(str(interrupt))}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"noneg: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
        return 2
    return 0


def _run(command: str, arguments: list[str]) -> None:
    if command not in PARSERS:
        raise NonegError(f"no command '{command}'; there are: {', '.join(PARSERS)}")
    if command == "train":
        # Its parser depends on the method, the recipe and the data that are given.
        import_module("noneg.commands.train").run(arguments)
        return
    chosen = PARSERS[command]().parse_args(arguments)
    import_module(f"noneg.commands.{command}").run(**vars(chosen))


@final
class _Harmless:
    """A text stream on which no name can steer the terminal: its control characters are escaped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@final
class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise NonegError(f"{message}; see {self.prog} --help")


def train_parser() -> argparse.ArgumentParser:
    """`noneg train [DATA] [--setting VALUE ...]`, with the options of the default method."""
    from noneg.commands.train import help_parser

    return help_parser()


def report_parser() -> argparse.ArgumentParser:
    """`noneg report RUN [RUN ...] [--out FILE]`."""
    parser = _Parser(
        prog="noneg report",
        description="Write a page about a run, which opens in a browser without a network. For "
        "several runs the page compares them.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="directory of a run")
    _add_backbone(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the HTML file (default: report.html in the run, or comparison.html for several)",
    )
    parser.add_argument(
        "--images", type=int, default=5_000, help="show at most this many images (default: 5000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides which images are shown (default: 0)"
    )
    return parser


def views_parser() -> argparse.ArgumentParser:
    """`noneg views [DATA] [--out FILE]`."""
    parser = _Parser(
        prog="noneg views", description="Write a PNG with images and, beside each, its views."
    )
    _add_data(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default="views.png",
        help="the PNG file (default: views.png)",
    )
    parser.add_argument(
        "--method", default="vicreg", help="the method whose views are shown (default: vicreg)"
    )
    parser.add_argument("--recipe", default="small", help="small or paper (default: small)")
    parser.add_argument(
        "--views", help="a policy, such as byol or dihedral, instead of the recipe's"
    )
    parser.add_argument("--num-views", type=int, help="views per image")
    parser.add_argument("--size", type=int, help="side of the views in pixels")
    parser.add_argument("--channels", type=int, help="1 or 3 (arrays: any number)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default: 0)")
    parser.add_argument("--images", type=int, default=8, help="number of images (default: 8)")
    parser.add_argument(
        "--epochs", type=int, default=2, help="show the views of this many epochs (default: 2)"
    )
    return parser


def evaluate_parser() -> argparse.ArgumentParser:
    """`noneg evaluate RUN DATA`."""
    parser = _Parser(
        prog="noneg evaluate",
        description="Measure a run's encoder on DATA without labels, and score it if DATA has "
        "labels.",
    )
    _add_run(parser)
    parser.add_argument(
        "data",
        metavar="DATA",
        help="images: a folder (one subfolder per class), a .npz file, or a name",
    )
    parser.add_argument(
        "--bank",
        metavar="DATA",
        help="labeled images that the probes learn from; default: the run's own images if they "
        "have these labels, otherwise four fifths of DATA",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=10_000,
        help="use at most this many images of DATA, and of the bank (default: 10000)",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="also write scores and meters, as JSON"
    )
    return parser


def rank_parser() -> argparse.ArgumentParser:
    """`noneg rank RUN RUN ...`."""
    parser = _Parser(
        prog="noneg rank",
        description="Order runs, best first, by the label-free meter that best predicts accuracy.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="directory of a finished run"
    )
    return parser


def embed_parser() -> argparse.ArgumentParser:
    """`noneg embed RUN DATA --out FILE`."""
    parser = _Parser(prog="noneg embed", description="Write one embedding per image, as Parquet.")
    _add_run(parser)
    parser.add_argument("data", metavar="DATA", help="a folder, a .npy or .npz file, or a name")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help="the file.parquet; or a directory of parts, which a second command completes if the "
        "first one was stopped",
    )
    parser.add_argument(
        "--batch-size", type=int, default=256, help="images per batch (default: 256)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        help="processes that write parts, each on a GPU or a share of the cores (default: 1)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is faster where the processor has it, and says how much it changes "
        "(default: float32)",
    )
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="also thumbnails, a map and neighbors, as embedding-atlas reads them",
    )
    return parser


def search_parser() -> argparse.ArgumentParser:
    """`noneg search RUN DATA PICTURE ...`."""
    parser = _Parser(
        prog="noneg search", description="Find the images that are most similar to a picture."
    )
    _add_collection(parser)
    parser.add_argument(
        "queries", metavar="PICTURE", nargs="+", type=Path, help="a file with a picture"
    )
    parser.add_argument(
        "--count", type=int, default=10, help="images for each picture (default: 10)"
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="build an index, which pays beyond a million images, and say how much it finds",
    )
    return parser


def duplicates_parser() -> argparse.ArgumentParser:
    """`noneg duplicates RUN DATA [OTHER]`."""
    parser = _Parser(
        prog="noneg duplicates",
        description="Find near-duplicates within DATA, or images of OTHER that are near-duplicates "
        "of one in DATA, such as test images among those that one trains on.",
    )
    _add_collection(parser)
    parser.add_argument("other", metavar="OTHER", nargs="?", help="a second collection")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="COSINE",
        help="how similar duplicates are; default: measured on edited copies of DATA's images",
    )
    return parser


def outliers_parser() -> argparse.ArgumentParser:
    """`noneg outliers RUN DATA`."""
    parser = _Parser(
        prog="noneg outliers", description="Find the images that no other image resembles."
    )
    _add_collection(parser)
    return parser


def clusters_parser() -> argparse.ArgumentParser:
    """`noneg clusters RUN DATA`."""
    parser = _Parser(prog="noneg clusters", description="Find groups of similar images.")
    _add_collection(parser)
    parser.add_argument(
        "--count", type=int, help="clusters of k-means; default: chosen by the silhouette"
    )
    parser.add_argument(
        "--algorithm",
        choices=("kmeans", "hdbscan"),
        default="kmeans",
        help="hdbscan leaves odd images out (default: kmeans)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of k-means (default: 0)")
    return parser


def mislabeled_parser() -> argparse.ArgumentParser:
    """`noneg mislabeled RUN LABELED`."""
    parser = _Parser(
        prog="noneg mislabeled", description="Find labels that the most similar images contradict."
    )
    _add_collection(parser)
    parser.add_argument(
        "--labels",
        metavar="CSV",
        type=Path,
        help="labels in the columns name and label; default: the class folders",
    )
    return parser


def select_parser() -> argparse.ArgumentParser:
    """`noneg select RUN DATA --count N`."""
    parser = _Parser(prog="noneg select", description="Choose the images to label first.")
    _add_collection(parser)
    parser.add_argument("--count", type=int, required=True, help="how many")
    parser.add_argument(
        "--strategy",
        choices=("typical", "herding", "margin", "random"),
        default="typical",
        help="typical and herding need no labels; margin takes what a classifier of the labeled "
        "images is least sure of (default: typical)",
    )
    parser.add_argument(
        "--labeled",
        metavar="CSV",
        type=Path,
        help="images that have a label already, in the columns name and label",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    return parser


def finetune_parser() -> argparse.ArgumentParser:
    """`noneg finetune RUN LABELED --out DIR`."""
    parser = _Parser(
        prog="noneg finetune",
        description="Train a classifier on labeled images: a linear probe, then fine-tuning of the "
        "whole network from there. A fifth of the images is held out, and the best one is kept.",
    )
    _add_run(parser)
    _add_labeled(parser)
    parser.add_argument(
        "--epochs", type=int, default=10, help="of fine-tuning; 0: linear probe only (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides what is held out (default: 0)")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="directory of the classifier"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    return parser


def predict_parser() -> argparse.ArgumentParser:
    """`noneg predict CLASSIFIER DATA --out FILE`."""
    parser = _Parser(prog="noneg predict", description="Write the class of each image, as CSV.")
    parser.add_argument(
        "classifier", metavar="CLASSIFIER", type=Path, help="a directory of noneg finetune"
    )
    _add_backbone(parser)
    parser.add_argument("data", metavar="DATA", help="a folder, a .npy or .npz file, or a name")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the CSV file")
    parser.add_argument(
        "--batch-size", type=int, default=256, help="images per batch (default: 256)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image")
    return parser


def curve_parser() -> argparse.ArgumentParser:
    """`noneg curve RUN LABELED`."""
    parser = _Parser(
        prog="noneg curve",
        description="Is it worth labeling more? Accuracy of linear probes on 1, 5, 10, 50 and all "
        "labels of each class, beside the untrained network, the start of the run and patches.",
    )
    _add_run(parser)
    _add_labeled(parser)
    parser.add_argument(
        "--test", metavar="DATA", help="labeled images to test on; default: a fifth of LABELED"
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="choices of the labeled images (default: 5)"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=0,
        help="also fine-tune the network for so many epochs, each time (default: 0)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write the points, as JSON")
    return parser


def export_parser() -> argparse.ArgumentParser:
    """`noneg export RUN --format FORMAT --out FILE`."""
    parser = _Parser(
        prog="noneg export",
        description="Write the encoder for other tools, and check that they compute the same.",
    )
    _add_run(parser)
    parser.add_argument(
        "--format",
        choices=("onnx", "openvino", "timm", "torch"),
        required=True,
        help="onnx: a file, uint8 square images of any size in, features out; openvino: the same, "
        "as .xml and .bin; timm: a directory for timm, transformers and the Hugging Face Hub; "
        "torch: a file for torch.export.load",
    )
    parser.add_argument(
        "--out", metavar="PATH", type=Path, required=True, help="the file, or timm's directory"
    )
    parser.add_argument("--license", help="of the weights, for timm's model card")
    return parser


def study_parser() -> argparse.ArgumentParser:
    """`noneg study list` and `noneg study NAME [DATA]`."""
    parser = _Parser(
        prog="noneg study",
        description="Run a study and judge its claims. Finished runs are kept and not repeated; "
        "after Ctrl-C the same command continues.",
    )
    parser.add_argument("name", metavar="NAME", help="name of a study, or list")
    _add_data(parser)
    parser.add_argument("--eval-data", metavar="DATA", help="labeled images to score on")
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs per variant, one per seed (default: 3)"
    )
    parser.add_argument(
        "--budget",
        metavar="MINUTES",
        type=float,
        help="start no new run after this time, and judge the finished ones",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a trial of about two minutes, which decides nothing"
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        dest="assignments",
        action="append",
        default=[],
        help="a setting of noneg train for all runs, such as epochs=20; may be repeated",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default="studies",
        help="directory of the runs and pages (default: studies)",
    )
    return parser


def list_parser() -> argparse.ArgumentParser:
    """`noneg list methods|backbones [PATTERN]`."""
    parser = _Parser(prog="noneg list", description="List the names that can be chosen.")
    parser.add_argument(
        "kind",
        metavar="methods|backbones",
        choices=("methods", "backbones"),
        help="which names to list",
    )
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="of backbones, such as 'resnet*'"
    )
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    """What `noneg.load` takes."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="directory of a run or an encoder; or timm:NAME or local-dir:FOLDER, a network as it "
        "was trained elsewhere",
    )
    _add_backbone(parser)


def _add_collection(parser: argparse.ArgumentParser) -> None:
    """What commands about a collection take."""
    _add_run(parser)
    parser.add_argument("data", metavar="DATA", help="a folder, a .npy or .npz file, or a name")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write what was found: .html (a page with pictures), .csv or .json; may be repeated",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument(
        "--no-cache",
        dest="cache",
        action="store_false",
        help="neither use nor keep embeddings in .noneg/ beside DATA",
    )


def _add_labeled(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="LABELED",
        help="a folder with a subfolder for each class, a .npz file, or a name",
    )
    parser.add_argument(
        "--labels",
        metavar="CSV",
        type=Path,
        help="labels in the columns name and label; images without one are left out",
    )


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbone",
        metavar="MODULE:FUNCTION",
        help="allow the code that makes the run's network, if it is your own",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", nargs="?", default="shapes", help="as for noneg train"
    )


PARSERS: Final[dict[str, Callable[[], argparse.ArgumentParser]]] = {
    "train": train_parser,
    "report": report_parser,
    "views": views_parser,
    "evaluate": evaluate_parser,
    "rank": rank_parser,
    "search": search_parser,
    "duplicates": duplicates_parser,
    "outliers": outliers_parser,
    "clusters": clusters_parser,
    "mislabeled": mislabeled_parser,
    "select": select_parser,
    "finetune": finetune_parser,
    "predict": predict_parser,
    "curve": curve_parser,
    "embed": embed_parser,
    "export": export_parser,
    "study": study_parser,
    "list": list_parser,
}
"""The parser of each command, by its name."""
