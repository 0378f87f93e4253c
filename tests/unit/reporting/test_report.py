"""The report of a run and of a sweep."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedexp.reporting.report import report_run, report_sweep
from fedexp.reporting.results import find_runs
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
    for expected in ("plots/accuracy.png", "0.9123", "worst client", "skew.mean_total_variation"):
        assert expected in document


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
    report_sweep(runs)
    assert len(pd.read_csv(sweep / "table.csv")) == 4
