"""Damaged and hostile files: no crash, no hang, no code that runs, no file in another place."""

import io
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from real_runs import run_here
from safetensors.torch import load_file

import fuzzing
import noneg
from fuzzing import Outcome, damaged, fuzz, with_right_checksums
from noneg.classifier.classifier import Classifier, load_classifier
from noneg.commands.rank import rank_runs
from noneg.encoder import read_encoder_info
from noneg.errors import NonegError
from noneg.files import parse_yaml, read_fields
from noneg.images import find_source, load_images
from noneg.images.decode import decode
from noneg.images.source import Unreadable
from noneg.methods import find_method
from noneg.records.contents import read_run
from noneg.records.directory import RunDirectory
from noneg.training.config import load_config

IMAGES = fuzzing.pictures()


def assert_sound(outcome: Outcome) -> None:
    assert not outcome.crashes
    assert not outcome.hangs
    assert outcome.read + outcome.refused == outcome.files
    # The control: the changes do something, and not everything.
    assert outcome.refused > outcome.files // 10
    assert outcome.read > outcome.files // 100


def test_damaged_images() -> None:
    """More of them: benchmarks/reliability.py --fuzz 10000."""
    assert_sound(fuzz("images", 400))


def test_damaged_files_of_runs_and_encoders() -> None:
    assert_sound(fuzz("artifacts", 40))


def test_each_damaged_image_of_a_folder_is_named(tmp_path: Path) -> None:
    originals = fuzzing.pictures()
    for number in range(100):
        name, content = damaged(originals, number)
        (tmp_path / f"{number}-{name}").write_bytes(content)
    source = find_source(tmp_path)
    images = load_images(source, channels=3, size=16)
    names = {*images.names, *(each.name for each in images.skipped)}
    assert names == {source.name(index) for index in range(len(source))}
    assert all(each.reason for each in images.skipped)


def test_repaired_checksums_are_right() -> None:
    for name, content in fuzzing.pictures().items():
        if name.endswith("png"):
            assert with_right_checksums(content) == content


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(IMAGES)))
def test_any_bytes_are_an_image_or_unreadable(noise: bytes, name: str) -> None:
    whole = IMAGES[name]
    for content in (noise, whole[:40] + noise, whole[: len(whole) // 2] + noise):
        with open(os.memfd_create("image"), "w+b") as file:
            file.write(content)
            file.seek(0)
            with suppress(Unreadable):
                assert decode(file, 3, 8).shape == (3, 8, 8)


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.text(max_size=60) | PLAIN.map(lambda value: yaml.safe_dump(value)))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with suppress(ValueError):
        parse_yaml(text)


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    run_here(pictures, out, lambda _step: None, steps=3)
    return out


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copied"))


@settings(deadline=None)
@given(st.data())
def test_any_value_in_an_encoders_description(run: Path, data: st.DataObject) -> None:
    fields = json.loads((run / "encoder" / "encoder.json").read_text())
    name = data.draw(st.sampled_from([*fields, "other"]))
    fields[name] = data.draw(PLAIN)
    place = run.parent / "changed"
    place.mkdir(exist_ok=True)
    (place / "encoder.json").write_text(json.dumps(fields))
    with suppress(NonegError):
        info = read_encoder_info(place)
        assert len(info.mean) == len(info.std) == info.channels


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_opened(copied: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    payload = Payload(marker)
    # The control: it would run.
    pickle.loads(pickle.dumps(payload))
    assert marker.exists()
    marker.unlink()
    checkpoint = RunDirectory(copied).last_checkpoint
    state = torch.load(checkpoint, weights_only=True)
    torch.save(state | {"rate_factor": payload}, checkpoint)
    with pytest.raises(NonegError, match=r"last\.ckpt cannot be resumed from"):
        noneg.train(resume_from=copied)
    checkpoint.write_bytes(pickle.dumps(payload))
    with pytest.raises(NonegError, match=r"last\.ckpt cannot be resumed from"):
        noneg.train(resume_from=copied)
    for name in ("a.npy", "a.npz"):
        file = io.BytesIO()
        objects = np.array([payload], dtype=object)
        if name == "a.npy":
            np.save(file, objects, allow_pickle=True)
        else:
            np.savez(file, images=objects, allow_pickle=True)
        (tmp_path / name).write_bytes(file.getvalue())
        with pytest.raises(NonegError, match="not as objects"):
            find_source(tmp_path / name)
    weights = copied / "encoder" / "encoder.safetensors"
    weights.write_bytes(pickle.dumps(payload))
    with pytest.raises(NonegError, match="is damaged"):
        noneg.load(copied)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "method: !!python/object/apply:os.system ['touch executed']",
        "method: !!python/name:os.system ''",
        "? [a, b]\n: c",
        "method: [vicreg]",
        "recipe: {small: 1}",
        "config: other.yaml",
        "options: {class_path: os.system}",
        "views: [{class_path: os.system}]",
        "logger: {class_path: os.system}",
        "size: " + "9" * 5000,
        "size: 2020-99-99",
        "[" * 10_000,
        "- " * 1_500,
        "a: &a [1]\nmethod: *b",
        "method: [" + "x" * 2**20 + "]",
        "1: 2",
        "\x00",
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_hostile_settings_are_refused(copied: Path, text: str) -> None:
    config = copied / "config.yaml"
    (copied / "other.yaml").write_text("method: simsiam")
    config.write_text(text)
    with pytest.raises(NonegError) as caught:
        load_config(config)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)
    read_run(copied)
    assert not (copied / "executed").exists()
    assert not Path("executed").exists()


def test_a_few_lines_that_stand_for_millions(copied: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (copied / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(NonegError, match="too many values"):
        load_config(copied / "config.yaml")
    assert read_run(copied).settings == {}
    with pytest.raises(ValueError, match="too many values"):
        parse_yaml("&a [*a]")
    # The control: an alias as such is allowed.
    assert parse_yaml("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}


def test_files_that_are_too_large_or_too_deep(tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text('{"a":' + "[" * 100_000)
    with pytest.raises(ValueError, match=r"too deeply|Expecting"):
        read_fields(deep)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="too large"):
        read_fields(large)


@pytest.mark.parametrize("name", ["one.json", "one.yaml"])
def test_integers_that_no_float_can_hold(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"seconds": [1' + "0" * 400 + "]}")
    with pytest.raises(ValueError, match="number in it is too large"):
        read_fields(tmp_path / name)
    # The control: the largest seed.
    (tmp_path / name).write_text(f'{{"seed": {2**64 - 1}}}')
    assert read_fields(tmp_path / name) == {"seed": 2**64 - 1}


@pytest.mark.parametrize("meters", [{"trained": 1}, {"trained": {"h": 1}}, {"trained": [{}]}])
def test_meters_of_another_form_are_not_ranked(copied: Path, meters: dict[str, Any]) -> None:
    (copied / "meters.json").write_text(json.dumps(meters))
    assert [each.value for each in rank_runs([copied])] == [None]


def test_names_of_arrays_are_printed_without_control_characters(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{"pict\x1b[2Jures": np.zeros(3)})
    with pytest.raises(NonegError, match="no array named images") as caught:
        find_source(tmp_path / "other.npz")
    assert "\x1b" not in str(caught.value)


def test_a_module_that_is_no_method_is_not_imported(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "somebodys"
    package.mkdir()
    trap = "from pathlib import Path\nPath('executed').touch()\n"
    for name in ("__init__", "trap"):
        (package / f"{name}.py").write_text(trap)
    (tmp_path / "trap.so").touch()
    monkeypatch.chdir(tmp_path)
    config = RunDirectory(copied).config_file
    before = config.read_text()
    for name in ("somebodys.trap", "somebodys.missing", "antigravity.x", "..", ".os", "a b.c"):
        fields = yaml.safe_load(before) | {"method": name}
        config.write_text(yaml.safe_dump(fields))
        with pytest.raises(NonegError, match=r"is not a method|no method"):
            load_config(config)
        with pytest.raises(NonegError):
            noneg.train(resume_from=copied)
    assert not (tmp_path / "executed").exists()
    assert "somebodys" not in sys.modules
    # The control: what has the parts of a method is imported, and then it runs.
    (package / "trap.py").write_text(trap + "Options = RECIPES = None\n")
    with pytest.raises(NonegError, match="is not a method"):
        find_method("somebodys.trap")
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"size": 10**9},
        {"channels": 10**6},
        {"mean": [float("nan")] * 3},
        {"std": [1e999] * 3},
        {"std": [10**400] * 3},
        {"backbone": "os:abort"},
        {"backbone": "hf-hub:somebody/network"},
        {"backbone": "../../network"},
        {"backbone": 5},
        {"norm": ["batch"]},
        {"format": True},
    ],
)
def test_hostile_encoders_are_refused(copied: Path, change: dict[str, Any]) -> None:
    path = copied / "encoder" / "encoder.json"
    fields = json.loads(path.read_text()) | change
    path.write_text(json.dumps(fields))
    with pytest.raises(NonegError):
        noneg.load(copied)


def test_hostile_classifiers_are_refused(copied: Path) -> None:
    place = copied / "classifier"
    encoder = noneg.load(copied)
    width = encoder.info.features
    Classifier(encoder, torch.ones(2, width), torch.zeros(2), ("a", "b")).save(place)
    load_classifier(place)
    path = place / "classifier.json"
    whole = json.loads(path.read_text())
    changes: list[dict[str, Any]] = [
        {"temperature": 10**400},
        {"temperature": float("nan")},
        {"temperature": []},
        {"classes": 5},
        {"classes": ["a"]},
        {"validation": 3},
        {"format": "1"},
        {"format": 2},
    ]
    for change in changes:
        path.write_text(json.dumps(whole | change))
        with pytest.raises(NonegError):
            load_classifier(place)


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints", "encoder", "skipped.csv"])
def test_a_run_does_not_write_through_links(copied: Path, tmp_path: Path, name: str) -> None:
    """A stranger's run could point at files of ours."""
    outside = tmp_path / "outside"
    (copied / name).rename(outside)
    (copied / name).symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]}
    with pytest.raises(NonegError, match=f"{name} is a link to a place outside"):
        noneg.train(resume_from=copied)
    assert {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]} == before
    (copied / name).unlink()
    outside.rename(copied / name)
    noneg.train(resume_from=copied)


@pytest.mark.parametrize(
    "change",
    [
        {"state_dict": []},
        {"global_step": "3"},
        {"optimizer_states": []},
        {"optimizer_states": [{"state": {}, "param_groups": []}]},
        {"metering": 5},
        {"watchdog": {"history": 3}},
    ],
)
def test_checkpoints_with_other_contents_are_refused(copied: Path, change: dict[str, Any]) -> None:
    path = RunDirectory(copied).last_checkpoint
    torch.save(torch.load(path, weights_only=True) | change, path)
    weights = load_file(copied / "encoder" / "encoder.safetensors")
    with pytest.raises(NonegError, match=r"last\.ckpt cannot be resumed from"):
        noneg.train(resume_from=copied)
    assert load_file(copied / "encoder" / "encoder.safetensors").keys() == weights.keys()
