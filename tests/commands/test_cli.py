"""The command line, from flags to files, and its error messages."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

import noneg
from noneg.cli import main
from noneg.commands.train import parse_train
from noneg.errors import NonegError
from noneg.records.directory import RunDirectory
from noneg.training.config import TrainConfig, load_config, make_config, to_dict
from noneg.views import View


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 24 images, dark and light, and two files that are not images."""
    root = tmp_path_factory.mktemp("data") / "photos"
    generator = np.random.default_rng(0)
    for name, low in [("dark", 0), ("light", 120)]:
        (root / name).mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(low, low + 130, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    (root / "dark" / "empty.png").touch()
    (root / "light" / "text.jpg").write_text("not an image")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(folder), "--out", str(out), "--epochs", "2", "--batch-size=16"]) == 0
    return out


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("noneg: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_run_writes_its_results(run: Path, folder: Path) -> None:
    scores = json.loads((run / "scores.json").read_text())
    assert scores.keys() == {"trained", "untrained", "pixels", "patches"}
    for score in scores.values():
        assert 0 <= score["knn"] <= 1
        assert 0 <= score["linear"] <= 1
    skipped = (run / "skipped.csv").read_text().splitlines()
    assert len(skipped) == 3
    assert any("empty" in line for line in skipped[1:])
    config = load_config(run / "config.yaml")
    assert config.data == str(folder)
    assert (config.epochs, config.batch_size, config.size, config.channels) == (2, 16, 32, 3)
    assert noneg.load(run).info.data["images"] == 48


def test_embeddings_are_written_for_every_image(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "embeddings.parquet"
    assert main(["embed", str(run), str(folder), "--out", str(out)]) == 0
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == ["path", "embedding"]
    assert table.num_rows == 48
    width = noneg.load(run).info.features
    assert str(table.schema.field("embedding").type) == (
        f"fixed_size_list<element: float not null>[{width}]"
        if "not null" in str(table.schema.field("embedding").type)
        else f"fixed_size_list<element: float>[{width}]"
    )


def test_evaluating_again_gives_the_scores_of_the_run(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    assert main(["evaluate", str(run), str(folder), "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    meters = written.pop("meters")
    assert written == json.loads((run / "scores.json").read_text())
    assert meters["images"] == 48


def test_a_run_is_repeated_from_its_config(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(again)]) == 0
    first, second = (
        (each / "encoder" / "encoder.safetensors").read_bytes() for each in (run, again)
    )
    assert first == second


def test_printed_config_is_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "somewhere", "--method", "byol", "--options.tau=0.5", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"] == "somewhere"
    assert printed["options"]["tau"] == 0.5


def test_flags_override_the_file_and_the_file_overrides_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("method: byol\nepochs: 7\nweight_decay: 0.5\noptions:\n  tau: 0.9\n")
    config = parse_train(["data", "--config", str(path), "--epochs", "8"])
    assert (config.method, config.data, config.epochs) == ("byol", "data", 8)
    assert config.weight_decay == 0.5
    assert config.options.tau == 0.9
    assert config.options.predictor_hidden == 1024


def test_switches_hyphens_and_recipes() -> None:
    config = parse_train(["--strict", "--no-evaluate", "--weight-decay", "0.2"])
    assert (config.strict, config.evaluate, config.weight_decay) == (True, False, 0.2)
    assert parse_train(["--strict", "false"]).strict is False
    paper = parse_train(["--method", "byol", "--recipe", "paper"])
    assert (paper.optimizer, paper.epochs, paper.options.projector) == ("lars", 1000, (4096, 256))
    views = parse_train(['--views=[{"crop_scale": [0.5, 1.0]}, {"flip": 0.0}]', "--num-views=3"])
    assert [view.flip for view in views.policy(32)] == [0.5, 0.0, 0.5]


def test_configs_are_read_as_they_were_written(tmp_path: Path) -> None:
    config = parse_train(["data", "--method=simsiam", '--views=[{"hue": 0.0}, {"blur": 0.5}]'])
    RunDirectory(tmp_path).write_config(to_dict(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_hyphens_and_underscores_are_the_same() -> None:
    hyphens = parse_train(["--batch-size=8", "--eval-data", "x", "--no-report"])
    assert hyphens == parse_train(["--batch_size=8", "--eval_data", "x", "--no_report"])
    assert (hyphens.batch_size, hyphens.eval_data, hyphens.report) == (8, "x", False)


def test_flags_override_the_file_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 7\n")
    assert parse_train(["--epochs", "8", "--config", str(path)]).epochs == 8


def test_what_is_given_later_says_how_long_to_train(tmp_path: Path) -> None:
    def lengths(*arguments: str) -> tuple[int | None, int | None, float | None]:
        config = parse_train(arguments)
        return config.epochs, config.steps, config.minutes

    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("minutes: 2.5\n")
    # As a run of minutes writes it.
    other.write_text("epochs: null\nsteps: 70\nminutes: null\n")
    assert lengths() == (12, None, None)
    assert lengths("--minutes", "20") == (None, None, 20.0)
    assert lengths("--steps", "30") == (None, 30, None)
    assert lengths("--config", str(one)) == (None, None, 2.5)
    assert lengths("--config", str(other)) == (None, 70, None)
    assert lengths("--config", str(other), "--config", str(one)) == (None, None, 2.5)
    assert lengths("--config", str(other), "--epochs", "3") == (3, None, None)
    assert lengths("--minutes", "1", "--config", str(other)) == (None, None, 1.0)
    for settings in ({"minutes": 2}, {"minutes": 2, "epochs": None}):
        config = make_config(**settings)
        assert (config.epochs, config.minutes) == (None, 2.0)
    with pytest.raises(NonegError, match="--epochs and --minutes both say"):
        make_config(minutes=2, epochs=24)
    RunDirectory(tmp_path).write_config(to_dict(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_loggers_can_be_named_in_several_ways(tmp_path: Path) -> None:
    assert parse_train([]).logger == ()
    both = ("tensorboard", "wandb")
    assert parse_train(["--logger", "tensorboard,wandb"]).logger == both
    assert parse_train(["--logger=tensorboard", "--logger", "wandb"]).logger == both
    assert parse_train(["--logger=[tensorboard, wandb]"]).logger == both
    path = tmp_path / "settings.yaml"
    path.write_text("logger: [tensorboard, wandb]\n")
    assert parse_train(["--config", str(path)]).logger == both
    assert parse_train(["--config", str(path), "--logger", "mlflow"]).logger == ("mlflow",)
    assert make_config(logger=["tensorboard", "wandb"]).logger == both
    assert make_config(logger="mlflow").logger == ("mlflow",)
    RunDirectory(tmp_path).write_config(to_dict(make_config(logger=both)))
    assert load_config(tmp_path / "config.yaml").logger == both


def test_configs_of_the_first_version_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("views:\n- {grey: 0.5, hue: 0.0}\n- {blur: 0.1}\n")
    assert load_config(path).policy(32) == (View(grayscale=0.5, hue=0.0), View(blur=0.1))
    config = make_config(views=[{"grey": 0.5}, View()])
    assert config.policy(32) == (View(grayscale=0.5), View())


def test_printed_config_in_both_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for flag in ("--print_config", "--print-config"):
        with pytest.raises(SystemExit) as stop:
            main(["train", flag, "--epochs", "3"])
        assert stop.value.code == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert yaml.safe_load(printed[0])["epochs"] == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trian"], "no command 'trian'"),
        (["train", "--bogus", "3"], "there is no setting --bogus;"),
        (["train", "--batch_sise", "3"], "there is no setting --batch-sise;"),
        (["train", "--options.tau", "3"], "there is no setting --options.tau;"),
        (["train", "--epochs", "many"], "--epochs wants int, not many"),
        (["train", "--size", "many"], "--size wants int, not many;"),
        (["train", "--logger", "comet"], "--logger wants one of 'tensorboard', 'wandb', 'mlflow'"),
        (["train", "--views=[3]"], "--views [3] is not a list of views"),
        (["train", "--views=[{bright: 1}, {}]"], "a view has: size, crop_scale"),
        (["train", "--epochs"], "--epochs needs a value"),
        (["train", "--epochs", "0"], "--epochs must be at least 1"),
        (["train", "--minutes", "0"], "--minutes must be a number above 0: 0"),
        (["train", "--minutes=-5"], "--minutes must be a number above 0: -5"),
        (["train", "--minutes", "nan"], "--minutes"),
        (["train", "--minutes", ".inf"], "--minutes must be a number above 0: inf"),
        (["train", "--minutes", "soon"], "--minutes wants float, not soon"),
        (["train", "--minutes", "5", "--epochs", "3"], "--epochs and --minutes both say how long"),
        (["train", "--minutes", "5", "--steps", "3"], "--steps and --minutes both say how long"),
        (["train", "--steps", "0"], "--steps must be at least 1"),
        (["train", "--epochs", "null"], "give one of --epochs, --steps, --minutes"),
        (["train", "--continue-from", "nothing"], "nothing is not a run: it has no config.yaml"),
        (["train", "--learning-rate", "nan"], "--learning-rate wants float, not nan"),
        (["train", "--optimizer", "adam"], "one of 'adamw', 'muon', 'sgd', 'lars'"),
        (["train", "--method", "vicregs"], "did you mean vicreg?"),
        (["train", "--mean", "0.5"], "--mean wants list of float, not 0.5"),
        (["train", "--recipe", "large"], "it has: adapt, paper, small"),
        (["train", "--views", "wild"], "no views 'wild'"),
        (["train", "--options.variance", "much"], "--options.variance wants float, not much"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "no_such_folder"], "no_such_folder"),
        (["train", "one", "two"], "one DATA, not 2"),
        (["train", "--resume", "nothing"], "nothing is not a run"),
        (["train", "--resume", "run", "--epochs", "3"], "stands alone"),
        (["train", "--backbone", "resnet19"], "resnet"),
        (["train", "--size", "30", "--backbone", "vit_tiny_patch16_224"], "16"),
        (["embed", "nothing", "shapes", "--out", "x.parquet"], "nothing"),
        (["embed", "nothing"], "required"),
        (["evaluate", "nothing", "shapes"], "nothing"),
        (["list", "colors"], "colors"),
        (["list", "backbones", "nosuch*"], "nosuch*"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in failure(arguments, capsys)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("epochz: 3", "there is no setting 'epochz'"),
        ("options: {tau: 3}", "the method has no option 'tau'"),
        ("batch_size: few", "--batch-size wants int, not few"),
        ("logger: wandb", "--logger wants a list, not wandb"),
        ("views: [{bright: 1}, {}]", "--views: a view has no setting 'bright'; it has: size, "),
        ("- 3", "must hold settings"),
        ("epochs: [", "is not YAML"),
        ("{epochs: 3, minutes: 5}", "--epochs and --minutes both say how long to train"),
    ],
)
def test_a_bad_file_of_settings_gets_one_sentence(
    content: str, named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    assert named in failure(["train", "--config", str(path)], capsys)


def test_an_existing_run_is_never_overwritten(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "config.yaml").read_bytes()
    assert "holds a run already" in failure(["train", "shapes", "--out", str(run)], capsys)
    assert (run / "config.yaml").read_bytes() == before


def test_a_run_that_cannot_start_leaves_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("few.npy", np.zeros((5, 32, 32, 3), dtype=np.uint8))
    failure(["train", "few.npy", "--batch-size", "64"], capsys)
    failure(["train", "no_such_folder"], capsys)
    assert not any((tmp_path / "runs").iterdir())


def test_strict_stops_at_the_first_unreadable_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "empty.png" in failure(["train", str(folder), "--strict"], capsys)


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    listed = capsys.readouterr().out
    assert "arXiv 2105.04906" in listed
    # Place and accuracy, of those that were measured, and under which conditions.
    figures = r"([0-9]+) +[0-9]{2}\.[0-9] +[0-9]{2}\.[0-9]"
    kinds = {"byol": "online-target, predictor, teacher", "simclr": "contrastive, large batch"}
    for method, kind in {**kinds, "siamese": "control"}.items():
        assert re.search(f"^{method} +{kind} +({figures} +)?[A-Z]", listed, re.MULTILINE), method
    places = sorted(int(place) for place in re.findall(f" {figures} +[A-Z]", listed))
    assert places
    assert places == list(range(1, len(places) + 1))
    assert re.search("in the time of [0-9]+ steps of VICReg", listed)
    assert main(["list", "backbones", "resnet1?"]) == 0
    assert capsys.readouterr().out.split() == ["resnet18"]


def test_defaults_are_the_same_in_python_and_on_the_command_line() -> None:
    assert make_config("folder") == parse_train(["folder"])
    assert make_config() == parse_train([])
    assert isinstance(make_config(), TrainConfig)


def test_views_writes_a_sheet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", str(folder), "--views", "simclr", "--size", "24", "--images", "3"]) == 0
    assert "3 images of the folder" in capsys.readouterr().out
    with Image.open("views.png") as sheet:
        assert sheet.format == "PNG"
    assert "no views 'wild'" in failure(["views", str(folder), "--views", "wild"], capsys)
    assert "was not found" in failure(["views", "nowhere"], capsys)
