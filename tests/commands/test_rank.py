"""Runs are ordered without labels; failed runs come last."""

import json
from pathlib import Path

import pytest

from noneg.cli import main
from noneg.commands.rank import RankingMeter, format_ranking, rank_runs
from noneg.errors import NonegError


def write_run(
    folder: Path, name: str, value: float | None, *, state: str = "healthy", data: str = "photos"
) -> Path:
    run = folder / name
    run.mkdir()
    (run / "config.yaml").write_text(f"method: vicreg\ndata: {data}\n")
    meters = {"trained": {"h": {"view_retrieval": value, "std": 0.5}}}
    (run / "meters.json").write_text(json.dumps(meters))
    (run / "verdict.json").write_text(json.dumps({"state": state}))
    return run


def test_more_is_better_and_unmeasured_and_failed_runs_come_last(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "good", 0.3),
        write_run(tmp_path, "collapsed", 0.9, state="complete collapse"),
        write_run(tmp_path, "unmeasured", None),
        write_run(tmp_path, "better", 0.5),
    ]
    order = [each.run.name for each in rank_runs(runs)]
    assert order == ["better", "good", "unmeasured", "collapsed"]
    less = RankingMeter("view_retrieval", "h", -1, -0.5, -0.7, -0.2, 10, -0.4, 20)
    assert [each.run.name for each in rank_runs(runs, less)][:2] == ["good", "better"]


def test_it_says_how_reliable_the_order_is(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, name, 0.3) for name in ("a", "b")]
    text = format_ranking(rank_runs(runs))
    assert "0.86 (95 % interval 0.78 to 0.92)" in text
    assert "0.67 over 300 other runs" in text
    assert "different images" not in text
    other = write_run(tmp_path, "c", 0.4, data="cifar10")
    assert "trained on different images" in format_ranking(rank_runs([*runs, other]))


def test_scores_of_earlier_versions_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, name, 0.3) for name in ("a", "b", "unscored")]
    for run in runs[:2]:
        (run / "scores.json").write_text(json.dumps({"trained": {"knn": 0.5}}))
    assert "do not compare these" not in format_ranking(rank_runs(runs))
    (runs[0] / "scores.json").write_text(json.dumps({"trained": {"knn": 0.5, "knn_raw": 0.25}}))
    assert "do not compare these" in format_ranking(rank_runs(runs))


def test_a_directory_without_a_finished_run_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, "unfinished", 0.1)
    (run / "meters.json").unlink()
    with pytest.raises(NonegError, match=r"has no meters\.json, so it is not finished"):
        rank_runs([run])
    assert main(["rank", str(tmp_path / "nowhere")]) == 2
    assert "is not a run" in capsys.readouterr().err
