"""The report of a run and of a sweep."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pandas as pd
import pytest

from fedexp.core.checks import InputError
from fedexp.reporting.finding import find_runs
from fedexp.reporting.report import report
from fedexp.reporting.run_report import report_run
from fedexp.reporting.sweep_report import report_sweep
from tests.support.run_folders import write_failed, write_run
from tests.support.sweep_folders import write_two_rules


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_two_rules(tmp_path)


def test_report_run_says_what_was_run_and_how_it_went(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=5, n_clients=3, final={"accuracy": 0.9123})
    text = report_run(folder)
    assert "federated, mnist, dirichlet partition" in text
    assert "Status: complete, 5 of 5 rounds in 12.3 s" in text
    test_row = next(line for line in text.splitlines() if line.split()[:1] == ["test"])
    assert test_row.split()[2:4] == ["0.9123", "0.1200"]  # the baseline stands beside it
    assert "validation" in text
    assert str(folder / "plots") in text
    document = (folder / "report.md").read_text()
    for expected in ("plots/accuracy.png", "0.9123", "worst client", "class mix from that of all"):
        assert expected in document


@pytest.mark.parametrize(
    ("sent", "said"), [(0, "0.0 MB"), (15_300, "15.3 kB"), (1_560_000, "1.6 MB")]
)
def test_what_was_sent_is_not_said_to_be_nothing(tmp_path: Path, sent: int, said: str) -> None:
    folder = write_run(tmp_path / "run", rounds=2)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "bytes_up": sent}))
    report_run(folder, plots=False)
    assert f"- sent to the server: {said}\n" in (folder / "report.md").read_text()


def test_report_run_of_a_failed_job_shows_the_error_and_draws_nothing(tmp_path: Path) -> None:
    folder = write_failed(tmp_path / "r", "training.lr=-1: must be a finite number above 0")
    text = report_run(folder)
    assert "Status: failed, 0 of 30 rounds" in text
    assert "training.lr=-1" in text
    assert "training.lr=-1" in (folder / "report.md").read_text()
    assert not (folder / "plots").exists()


@pytest.mark.usefixtures("real_pictures")
def test_report_sweep_writes_its_tables_and_returns_the_markdown(sweep: Path) -> None:
    text = report_sweep([sweep])
    assert "0.940 ± 0.040" in text
    assert len(pd.read_csv(sweep / "table.csv")) == 7
    assert list(pd.read_csv(sweep / "summary.csv")["n"]) == [2, 3, 0]
    assert "no space left on device" in (sweep / "table.md").read_text()
    assert (sweep / "comparison.png").stat().st_size > 10_000


def test_report_sweep_of_runs_named_one_by_one(sweep: Path, tmp_path: Path) -> None:
    runs = [path for path in find_runs([sweep]) if "mean" in path.name]
    report_sweep(runs, folder=tmp_path / "elsewhere")
    assert len(pd.read_csv(tmp_path / "elsewhere" / "table.csv")) == 4


def _written(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_some_runs_of_a_sweep_do_not_replace_its_tables(sweep: Path, tmp_path: Path) -> None:
    report_sweep([sweep])
    before = _written(tmp_path)
    text = report([path for path in find_runs([sweep]) if "mean" in path.name])
    assert "0.940 ± 0.040" in text
    assert "Nothing was written; --out FOLDER" in text
    runs = find_runs([sweep])
    after = _written(tmp_path)
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed
    assert all(any(run in path.parents for run in runs) for path in changed)


@pytest.mark.parametrize("name", ["leakage.csv", "robustness.csv", "table.csv", "notes.txt"])
def test_a_table_of_somebodys_own_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    runs = [write_run(tmp_path / f"r{seed}", seed=seed, rounds=1, n_clients=2) for seed in (0, 1)]
    report(runs)
    report([tmp_path])
    (tmp_path / "multirun.yaml").touch()
    if name != "table.csv":  # which the sweep has of its own
        report([tmp_path])
    assert (tmp_path / name).read_text() == "mine"


def test_out_is_the_only_place_that_is_written_to(sweep: Path, tmp_path: Path) -> None:
    before = _written(sweep)
    out = tmp_path / "out"
    report([sweep], out)
    report([sweep / "aggregator=mean,seed=0"], out / "run")
    assert {path for path in _written(sweep) if out not in path.parents} == set(before)
    assert len(pd.read_csv(out / "table.csv")) == 7
    assert "plots/accuracy.png" in (out / "run" / "report.md").read_text()
    assert (out / "run" / "plots" / "accuracy.png").is_file()


def test_what_cannot_be_written_is_printed(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(path: Path, content: bytes, durable: bool = True) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for module in ("figures", "run_report", "sweep_report"):
        monkeypatch.setattr(f"fedexp.reporting.{module}.write_atomically", read_only)
    before = _written(sweep)
    run = sweep / "aggregator=mean,seed=0"
    assert "0.9000" in report([run])
    assert f"cannot write to {run}: Read-only file system" in caplog.messages
    assert "0.940 ± 0.040" in report([sweep])
    assert f"cannot write to {sweep}: Read-only file system" in caplog.messages
    assert _written(sweep) == before


def test_what_was_to_be_written_somewhere_and_cannot_be_is_refused(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, durable: bool = True) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in ("figures", "run_report", "sweep_report"):
        monkeypatch.setattr(f"fedexp.reporting.{module}.write_atomically", full)
    for named in (sweep, sweep / "aggregator=mean,seed=0"):
        with pytest.raises(InputError, match=r"^cannot write to \S*out: No space left on device$"):
            report([named], tmp_path / "out")
    assert "nothing" in report_sweep([sweep], sweep)  # as a sweep that ends asks for it


def test_a_linked_run_is_counted_and_not_written_to(sweep: Path, tmp_path: Path) -> None:
    disk = tmp_path.parent / f"{tmp_path.name}-disk"
    disk.mkdir()
    (sweep / "aggregator=mean,seed=1").rename(disk / "run")
    (sweep / "aggregator=mean,seed=1").symlink_to(disk / "run")
    (sweep / "elsewhere").symlink_to(disk)
    (sweep / "gone").symlink_to(disk / "nothing")
    before = _written(disk)
    text = report([sweep])
    assert list(pd.read_csv(sweep / "summary.csv")["n"]) == [2, 3, 0]
    assert _written(disk) == before
    said = text.partition("## Links that were not followed")[2]
    assert [line for line in said.splitlines() if line.startswith("- ")] == [
        f"- {sweep / 'elsewhere'}",
        f"- {sweep / 'gone'}",
    ]


def test_vector_pictures_of_a_sweep_go_with_the_next_report(sweep: Path) -> None:
    text = report([sweep], also=["pdf"])
    assert "comparison.pdf" in text
    assert (sweep / "comparison.pdf").is_file()
    assert not list(sweep.glob("*/plots/*.pdf"))
    report([sweep])
    assert not (sweep / "comparison.pdf").exists()
