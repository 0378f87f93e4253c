"""Reports of the runs of a sweep are made once, and again where they would be others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedexp.reporting import current, run_report
from fedexp.reporting.report import report
from tests.support.run_folders import write_run


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were drawn, in order."""
    drawn: list[str] = []
    draw = run_report._draw

    def counted(run, *how):
        drawn.append(run.path.name)
        return draw(run, *how)

    monkeypatch.setattr(run_report, "_draw", counted)
    return drawn


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed in range(3):
        write_run(tmp_path / f"r{seed}", seed=seed, rounds=1, n_clients=2)
    return tmp_path


def test_a_report_that_is_as_it_should_be_is_left(sweep: Path, drawings: list[str]) -> None:
    first = report([sweep])
    assert drawings == ["r0", "r1", "r2"]
    assert report([sweep]) == first
    assert len(drawings) == 3
    report([sweep], force=True)
    assert len(drawings) == 6


def test_a_run_that_is_named_alone_is_drawn(sweep: Path, drawings: list[str]) -> None:
    report([sweep])
    report([sweep / "r1"])
    assert drawings[3:] == ["r1"]


def _went_on(run: Path) -> None:
    with open(run / "metrics.csv", "a") as file:
        file.write("2,test,all,loss,0.5\n")


def _studied(run: Path) -> None:
    (run / "leakage" / "geiping").mkdir(parents=True)
    (run / "leakage" / "geiping" / "notes.txt").write_text("found")


def _lost_its_report(run: Path) -> None:
    (run / "report.md").unlink()


def _lost_power(run: Path) -> None:
    (run / "plots" / "loss.png").write_bytes(b"")


def _has_a_broken_stamp(run: Path) -> None:
    (run / current.STAMP).write_text('{"of": [], "files": {"\\u0000": 1}}')


def _has_no_stamp(run: Path) -> None:
    (run / current.STAMP).unlink()


@pytest.mark.parametrize(
    "happen",
    [_went_on, _studied, _lost_its_report, _lost_power, _has_a_broken_stamp, _has_no_stamp],
)
def test_what_would_be_drawn_otherwise_is_drawn(
    sweep: Path, drawings: list[str], happen: Callable[[Path], None]
) -> None:
    report([sweep])
    happen(sweep / "r1")
    report([sweep])
    assert drawings[3:] == ["r1"]
    report([sweep])
    assert drawings[4:] == []


def test_what_other_code_drew_is_left_and_said(
    sweep: Path, drawings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = report([sweep])
    monkeypatch.setattr(current, "_code", lambda: "of tomorrow")
    said = "The reports of 3 runs were drawn by another version: --force draws them anew."
    assert report([sweep]).split() == [*first.split(), *said.split()]
    assert len(drawings) == 3
    assert report([sweep], force=True) == first
    assert len(drawings) == 6
    assert report([sweep]) == first


def test_several_processes_report_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        write_run(tmp_path / "a" / f"r{seed}", seed=seed, rounds=1, n_clients=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    alone = report([tmp_path / "a"])
    monkeypatch.setattr("fedexp.reporting.report.WORTH_A_POOL", 1)
    monkeypatch.setattr("fedexp.reporting.report.available_cores", lambda: 2)
    assert report([tmp_path / "b"]) == alone
    for name in ("report.md", "plots/accuracy.png"):
        assert (tmp_path / "b/r1" / name).read_bytes() == (tmp_path / "a/r1" / name).read_bytes()
