"""The command line: `noneg train | report | views | evaluate | rank | embed | study | list`.

What needs torch is imported inside the command that needs it, so that help comes at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from noneg._version import __version__
from noneg.errors import NonegError

HELP = """\
usage: noneg COMMAND [...]

Train an image encoder on your own unlabeled images, without negative pairs.

commands:
  train [DATA]                    train an encoder and say how good it is
  train --resume RUN              go on with a run that was stopped
  report RUN [RUN ...]            write a page about a run, or one that compares several
  views DATA                      write a picture of the views a run would train on
  evaluate RUN DATA               measure a run's encoder on images, and score it where labels are
  rank RUN RUN ...                order runs without labels, and say how far to trust it
  embed RUN DATA --out FILE       write an embedding for every image, as Parquet
  study list                      what the field says of collapse, claim by claim
  study NAME [DATA]               run the experiments behind one, and judge it
  list methods|backbones          what there is to choose from

DATA is a folder of images, a .npy or .npz file, a name such as cifar10, or shapes (built in).

  noneg COMMAND --help            the settings of a command
  noneg --version                 the version
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise NonegError(f"{message}; see {self.prog} --help")


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
        if given[0] not in COMMANDS:
            raise NonegError(f"no command '{given[0]}'; there are: {', '.join(COMMANDS)}")
        COMMANDS[given[0]](given[1:])
    except NonegError as error:
        print(f"noneg: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"noneg: stopped. {interrupt}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return 0


def train(arguments: list[str]) -> None:
    """`noneg train [DATA] [--setting VALUE ...]`."""
    from noneg.commands.train import run

    run(arguments)


def report(arguments: list[str]) -> None:
    """`noneg report RUN [RUN ...] [--out FILE]`."""
    parser = _Parser(
        prog="noneg report",
        description="Write a page about a run that opens in a browser, without a network. Of "
        "several runs, a page that compares them.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run's directory")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the HTML file (default: report.html in the run; comparison.html for several)",
    )
    parser.add_argument(
        "--images", type=int, default=5_000, help="show at most so many (default: 5000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of their choice (default: 0)")
    chosen = parser.parse_args(arguments)
    from noneg.report import write_report

    written = write_report(
        [Path(run) for run in chosen.runs],
        Path(chosen.out) if chosen.out else None,
        most=chosen.images,
        seed=chosen.seed,
    )
    print(f"report   {written}")


def views(arguments: list[str]) -> None:
    """`noneg views DATA [--out FILE]`."""
    parser = _Parser(
        prog="noneg views", description="Write a PNG of images beside the views drawn of them."
    )
    parser.add_argument("data", metavar="DATA", nargs="?", default="shapes", help="as for train")
    parser.add_argument(
        "--out", metavar="FILE", default="views.png", help="the PNG file (default: views.png)"
    )
    parser.add_argument("--method", default="vicreg", help="whose views to draw (default: vicreg)")
    parser.add_argument("--recipe", default="small", help="small or paper (default: small)")
    parser.add_argument(
        "--views", help="a policy, such as byol or dihedral, instead of the recipe's"
    )
    parser.add_argument("--num-views", type=int, help="views of each image")
    parser.add_argument("--size", type=int, help="side of the views in pixels")
    parser.add_argument("--channels", type=int, help="1 or 3 (arrays: any number)")
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    parser.add_argument("--images", type=int, default=8, help="rows (default: 8)")
    parser.add_argument("--epochs", type=int, default=2, help="draws of each (default: 2)")
    chosen = vars(parser.parse_args(arguments))
    out, images, epochs = (chosen.pop(name) for name in ("out", "images", "epochs"))
    from noneg.commands.views import write_sheet
    from noneg.training.config import make_config

    data = chosen.pop("data")
    settings = {name: value for name, value in chosen.items() if value is not None}
    config = make_config(data, **settings)
    print(f"{write_sheet(Path(out), config, images=images, epochs=epochs)}: {out}")


def evaluate(arguments: list[str]) -> None:
    """`noneg evaluate RUN DATA`."""
    parser = _Parser(
        prog="noneg evaluate",
        description="Measure a run's encoder on DATA without labels, and score it where there are "
        "some.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory")
    parser.add_argument(
        "data", metavar="DATA", help="images: a folder (one subfolder a class), a .npz, a name"
    )
    parser.add_argument(
        "--bank",
        metavar="DATA",
        help="labeled images that the probes learn from; by default the run's own images where "
        "they have these labels, else four fifths of DATA",
    )
    parser.add_argument(
        "--images", type=int, default=10_000, help="use at most so many of each (default: 10000)"
    )
    parser.add_argument("--out", metavar="FILE", help="also write the scores as JSON")
    chosen = parser.parse_args(arguments)
    from noneg.commands.evaluate import evaluate_run

    evaluate_run(
        Path(chosen.run),
        chosen.data,
        bank=chosen.bank,
        images=chosen.images,
        out=Path(chosen.out) if chosen.out else None,
    )


def rank(arguments: list[str]) -> None:
    """`noneg rank RUN RUN ...`."""
    parser = _Parser(
        prog="noneg rank",
        description="Order runs, best first, by the label-free meter that predicted accuracy best.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="directories of finished runs")
    chosen = parser.parse_args(arguments)
    from noneg.commands.rank import format_ranking, rank_runs

    print(format_ranking(rank_runs([Path(run) for run in chosen.runs])))


def embed(arguments: list[str]) -> None:
    """`noneg embed RUN DATA --out FILE`."""
    parser = _Parser(prog="noneg embed", description="Write one embedding an image, as Parquet.")
    parser.add_argument("run", metavar="RUN", help="a run's or an encoder's directory")
    parser.add_argument("data", metavar="DATA", help="a folder, a .npy or .npz file, or a name")
    parser.add_argument("--out", metavar="FILE", required=True, help="the Parquet file")
    parser.add_argument("--batch-size", type=int, default=256, help="images at once (default: 256)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ... (default: auto)")
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image")
    chosen = parser.parse_args(arguments)
    from noneg.commands.embed import write_parquet
    from noneg.encoder import load

    encoder = load(chosen.run)
    written = write_parquet(
        Path(chosen.out),
        encoder,
        chosen.data,
        batch_size=chosen.batch_size,
        device=chosen.device,
        strict=chosen.strict,
        progress=True,
    )
    print(f"{written.rows} embeddings of {encoder.info.features} numbers written to {chosen.out}")
    for image in written.skipped:
        print(f"skipped {image.name}: {image.reason}", file=sys.stderr)


def study(arguments: list[str]) -> None:
    """`noneg study list` and `noneg study NAME [DATA]`."""
    parser = _Parser(
        prog="noneg study",
        description="Run a study and judge its claims. What is finished is kept and never run "
        "again; after Ctrl-C the same command goes on.",
    )
    parser.add_argument("name", metavar="NAME", help="of the study, or list")
    parser.add_argument("data", metavar="DATA", nargs="?", default="shapes", help="as for train")
    parser.add_argument("--eval-data", metavar="DATA", help="labeled images to score on")
    parser.add_argument("--seeds", type=int, default=3, help="of each variant (default: 3)")
    parser.add_argument(
        "--budget",
        metavar="MINUTES",
        type=float,
        help="start no new run after so many minutes, and judge what there is",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a look in about two minutes, which decides nothing"
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
        "--out", metavar="DIR", default="studies", help="for runs and pages (default: studies)"
    )
    chosen = vars(parser.parse_args(arguments))
    if chosen["seeds"] < 1:
        raise NonegError(f"--seeds must be at least 1: {chosen['seeds']}")
    name, out = chosen.pop("name"), Path(chosen.pop("out"))
    from noneg.commands.study import print_studies, run_study

    if name == "list":
        print_studies()
    else:
        run_study(name, out=out, **chosen)


def list_names(arguments: list[str]) -> None:
    """`noneg list methods|backbones [PATTERN]`."""
    parser = _Parser(prog="noneg list", description="What there is to choose from.")
    parser.add_argument("kind", metavar="methods|backbones", choices=("methods", "backbones"))
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'resnet*'")
    chosen = parser.parse_args(arguments)
    if chosen.kind == "methods":
        from noneg.methods import find_method, list_methods

        for name in list_methods():
            print(f"{name:14} {find_method(name).summary}")
        return
    from noneg.networks.backbones import list_backbones

    names = list_backbones(chosen.pattern)
    if not names:
        raise NonegError(f"no backbone matches '{chosen.pattern}'; noneg list backbones shows all")
    print("\n".join(names))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "report": report,
    "views": views,
    "evaluate": evaluate,
    "rank": rank,
    "embed": embed,
    "study": study,
    "list": list_names,
}
