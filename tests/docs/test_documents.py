"""What the documents show is true: commands parse, blocks run, links lead somewhere.

A fenced `bash` or `python` block runs, in a folder with `photos/`, `labeled/` and a finished run
`RUN`, and in the order of its document. Two comments on the line before a block change that:

    <!-- not run: the reason -->          its noneg commands are only parsed
    <!-- file: my_package/module.py -->   it is written to that file instead

Runs are shortened to two epochs and make no report.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import noneg
import noneg.training.run
from noneg import cli
from noneg.cli import PARSERS
from noneg.commands.train import parse_resume, parse_train
from noneg.methods import list_methods
from noneg.studies import find_study
from noneg.training.config import TrainConfig, make_config, make_parser

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]

every_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY))
)


def check(words: list[str]) -> None:
    """Parse the words after `noneg` as its command would, without running it."""
    command, *arguments = words
    if command in ("--help", "--version") or "--help" in arguments:
        return
    if command == "train":
        assert parse_resume(arguments) or parse_train(arguments)
        return
    if command not in PARSERS:
        raise noneg.NonegError(f"no command {command}")
    chosen = PARSERS[command]().parse_args(arguments)
    if command == "study" and chosen.name != "list":
        find_study(chosen.name)
    for assignment in getattr(chosen, "assignments", []):
        name, _, value = assignment.partition("=")
        make_config(**{name: ast.literal_eval(value)})


# What stands for something that the reader chooses.
_PLACEHOLDERS = {"NAME": "vicreg", "N": "0", "MINUTES": "1"}
_PREFIXES = re.compile(r"^(\$ |srun |\.venv/bin/|torchrun .* -m )")


def words_of(line: str) -> list[str] | None:
    """The words after `noneg` of a line that runs it, else None."""
    shown = _PREFIXES.sub("", line.strip())
    if not shown.startswith("noneg "):
        return None
    words = [word for word in shlex.split(shown, comments=True)[1:] if word != "..."]
    return [_PLACEHOLDERS.get(word, word) for word in words]


def commands_of(text: str) -> Iterator[list[str]]:
    """Every noneg command of a document: in fences, in indented lines, within a sentence."""
    text = text.replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    indented = re.findall(r"^    noneg .*", text, re.MULTILINE)
    for line in re.split(r"\n|&&", "\n".join([fenced, *indented])):
        if (words := words_of(line)) is not None:
            yield words
    for code in re.findall(r"(?<!`)`(noneg [^`]+)`(?!`)", text):
        words = words_of(" ".join(code.split()))
        # A command that is named and not shown has no arguments; [DATA] is a synopsis.
        if words is not None and len(words) > 1 and "[" not in code:
            # What a study is called is its first argument.
            if words[:2] == ["study", "vicreg"]:
                words[1] = "bare-siamese"
            yield words


@every_document
def test_every_command_parses(path: Path) -> None:
    for words in commands_of(path.read_text(encoding="utf-8")):
        # A method of one's own is parsed when its document runs, where its module exists.
        if "COMMAND" in words or "my_package.my_method" in words:
            continue
        # Nor is there a file of settings or a finished run here.
        for flag in ("--config", "--continue-from"):
            if flag in words:
                position = words.index(flag)
                words = words[:position] + words[position + 2 :]
        try:
            check(words)
        except (noneg.NonegError, SystemExit) as error:
            pytest.fail(f"noneg {' '.join(words)}: {error}")


@pytest.mark.parametrize(
    "wrong",
    [
        "noneg train photos/ --epoch-count 3",
        "noneg train photos/ --method byol --options.tua 0.9",
        "noneg train photos/ --precision",
        "noneg report RUN --pages 3",
        "noneg study bare-siamesse",
        "noneg study em --set epoch=3",
        "noneg predict RUN",
    ],
)
def test_a_wrong_command_is_noticed(wrong: str) -> None:
    (words,) = commands_of(f"```bash\n{wrong}  # why\n```")
    with pytest.raises(noneg.NonegError):
        check(words)


@cache
def all_flags() -> set[str]:
    made = [make() for make in PARSERS.values()]
    made += [make_parser(method) for method in list_methods()]
    flags = {
        flag for parser in made for action in parser._actions for flag in action.option_strings
    }
    flags |= {"--resume", "--version"}
    switches = [name for name, value in vars(TrainConfig()).items() if isinstance(value, bool)]
    return {flag.replace("_", "-") for flag in flags} | {f"--no-{name}" for name in switches}


# Those of the benchmarks, and of other programs.
_NOT_OURS = {
    *("--judge", "--rounds", "--steps", "--quick", "--open-test", "--ntasks-per-node", "--nodes"),
}


@every_document
def test_every_flag_exists(path: Path) -> None:
    known = all_flags() | _NOT_OURS
    for code in re.findall(r"(?<!`)`(--[^`]+)`(?!`)", path.read_text(encoding="utf-8")):
        flag = re.split(r"[ =]", code)[0]
        if flag != "--options.NAME":
            assert flag.replace("_", "-") in known, code


def marked(example: Example, what: str) -> str | None:
    """The text of a comment `<!-- what: text -->` on the line before a block."""
    before = example.document.text[: example.start].rstrip().rsplit("\n", 1)[-1]
    found = re.fullmatch(rf"<!-- {what}: (.+) -->", before)
    return None if found is None else found[1]


def run_python(example: Example) -> None:
    """Execute a block; a comment after an expression's line is what it must give."""
    if marked(example, "not run"):
        return
    source = str(example.parsed)
    if (name := marked(example, "file")) is not None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(source, encoding="utf-8")
        return
    lines = source.split("\n")
    namespace = example.namespace
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Expr):
            module = ast.Module([statement], type_ignores=[])
            exec(compile(module, example.path, "exec"), namespace)
            continue
        value = eval(compile(ast.Expression(statement.value), example.path, "eval"), namespace)
        following = lines[statement.end_lineno] if statement.end_lineno < len(lines) else ""
        if following.startswith("# ") and value is not None:
            assert repr(value) == following[2:]


def run_shell(example: Example) -> None:
    """Run a block's noneg commands in this process; anything else has to be marked."""
    if marked(example, "not run"):
        return
    for line in str(example.parsed).replace("\\\n", " ").split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = words_of(line)
        assert words is not None, f"mark the block as not run, with the reason: {line}"
        check(words)
        # A study takes minutes; tests/studies runs small ones.
        if words[0] == "study" and words[1] != "list":
            continue
        try:
            code = cli.main(words)
        except SystemExit as end:  # of --help
            code = int(end.code or 0)
        assert code == 0, line


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> noneg.Run:
    """The run `RUN`, beside `photos/` and `labeled/`."""
    place = tmp_path_factory.mktemp("documents")
    generator = np.random.default_rng(0)
    for folder in ("photos", "labeled"):
        for label, low in (("dark", 0), ("light", 120)):
            (place / folder / label).mkdir(parents=True)
            for number in range(16):
                pixels = generator.integers(low, low + 130, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / folder / label / f"{number:02}.png")
    (place / "my_package").mkdir()
    (place / "my_package" / "__init__.py").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        made = noneg.train("photos/", epochs=1, size=16, out="RUN")
    return replace(made, directory=place / "RUN")


@pytest.fixture
def finished(made: noneg.Run, monkeypatch: pytest.MonkeyPatch) -> noneg.Run:
    """`RUN`, whose parent is the working directory, while further runs are short."""
    train = noneg.training.run._train

    def train_briefly(config: TrainConfig, *arguments: Any) -> noneg.Run:
        epochs = min(config.epochs or 2, 2)
        config = replace(config, epochs=epochs, steps=None, minutes=None, report=False)
        return train(config, *arguments)

    # By the command and by `noneg.train` alike.
    monkeypatch.setattr(noneg.training.run, "_train", train_briefly)
    monkeypatch.chdir(made.directory.parent)
    monkeypatch.syspath_prepend(made.directory.parent)
    return made


SYBIL = Sybil([CodeBlockParser("python", run_python), CodeBlockParser("bash", run_shell)])


def blocks_of(path: Path) -> list[Example]:
    return list(SYBIL.parse(path).examples())


@pytest.mark.parametrize(
    "path",
    [path for path in DOCUMENTS if path.exists() and blocks_of(path)],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_every_block_runs(path: Path, finished: noneg.Run) -> None:
    document = SYBIL.parse(path)
    document.namespace["run"] = finished
    for example in document.examples():
        example.evaluate()


@every_document
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "#")):
            assert (path.parent / target.split("#")[0]).exists(), target
