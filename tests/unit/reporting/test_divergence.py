"""A run whose clients diverged is complete, and its figure is marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedexp.reporting.divergence import MARK, NOTE, diverged, dropped_share
from fedexp.reporting.results import load_run
from fedexp.reporting.robustness import robustness_markdown, robustness_table
from fedexp.reporting.run_report import report_run
from fedexp.reporting.tables import markdown, summary_table
from tests.support.run_folders import write_run
from tests.support.sweep_folders import load

NAN = float("nan")


def _run(folder: Path, dropped: list[tuple[int, int]] = (), malicious=(), loss=0.1, **more) -> Path:
    """A run of 3 clients and 2 rounds, in which the updates (round, client) were dropped."""
    rows = []
    for number in (1, 2):
        for client in range(3):
            out = (number, client) in dropped
            rows.append((number, "update", str(client), "norm", NAN if out else 1.0))
            if out:
                rows.append((number, "update", str(client), "dropped", 1.0))
    write_run(folder, rounds=2, n_clients=3, more=rows, **more)
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["totals"] = {"dropped": len(dropped)}
    summary["malicious_clients"] = list(malicious)
    summary["final"]["test"]["loss"] = loss
    path.write_text(json.dumps(summary))
    return folder


@pytest.mark.parametrize(
    ("left", "share", "verdict"),
    [
        ({}, 0.0, False),
        ({"dropped": [(1, 0), (2, 0), (2, 1)]}, 3 / 6, True),
        ({"dropped": [(1, 0), (2, 0)], "malicious": [0]}, 0.0, False),  # attack=broken
        ({"dropped": [(1, 0), (2, 1)], "malicious": [0]}, 1 / 4, True),
        ({"loss": None}, 0.0, True),
    ],
)
def test_what_is_counted(tmp_path: Path, left: dict, share: float, verdict: bool) -> None:
    run = load_run(_run(tmp_path / "r", **left))
    assert dropped_share(run) == pytest.approx(share)
    assert diverged(run) is verdict


def test_a_run_says_that_its_model_has_no_finite_loss(tmp_path: Path) -> None:
    lost = report_run(_run(tmp_path / "lost", loss=None), plots=False)
    assert "Diverged: the loss on test is no finite number at the end" in lost
    assert "Diverged" in (tmp_path / "lost" / "report.md").read_text()
    assert "Diverged" not in report_run(_run(tmp_path / "well"), plots=False)


def test_the_cell_is_marked_and_the_mark_explained(tmp_path: Path) -> None:
    _run(tmp_path / "a", final={"accuracy": 0.9})
    _run(tmp_path / "b", [(2, 1)], final={"accuracy": 0.5}, config={"training.lr": 50})
    runs = load(tmp_path)
    assert list(summary_table(runs)["diverged"]) == [0, 1]
    text = markdown(runs)
    assert f"0.500 {MARK}" in text
    assert f"0.900 {MARK}" not in text
    assert "0.167" in text  # the share, of six
    assert NOTE in text
    assert MARK not in markdown(runs[:1])


def test_a_cell_of_the_attack_matrix_is_marked(tmp_path: Path) -> None:
    for attack, dropped in (("none", []), ("ipm", [(2, 1)])):
        choices = {"attack": attack, "aggregator": "mean"}
        _run(tmp_path / attack, dropped, choices=choices, final={"accuracy": 0.7})
    runs = load(tmp_path)
    table = robustness_table(runs)
    assert table is not None
    text = robustness_markdown(runs, table)
    marked = [line for line in text.splitlines() if MARK in line and line.startswith("|")]
    assert len(marked) == 1
    assert marked[0].startswith("| ipm")
    assert NOTE in text
