"""What a report says of a promise of privacy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fedexp.reporting.finding import find_runs
from fedexp.reporting.privacy_plots import accuracy_by_epsilon_figure
from fedexp.reporting.results import load_run
from fedexp.reporting.run_report import report_run
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import (
    configurations,
)
from tests.support.pictures import written_at
from tests.support.run_folders import write_run

PROMISE = {
    "mechanism": "DP-SGD in every client",
    "unit": "one example of one client",
    "adjacency": "add_remove",
    "epsilon": 3.14159,
    "delta": 1e-5,
    "accountant": "prv",
    "note": "",
    "sampling": "Poisson batches",
    "clip_norm": 1.0,
    "noise_multiplier": 1.25,
    "noise_added_by": "each client",
    "noise_source": "the run's seed",
    "max_epsilon": 4.0,
    "not_covered": ["measured figures"],
}


def with_promise(folder: Path, epsilon: float | None, **options: Any) -> Path:
    more = [(r, "privacy", "all", "epsilon", r / 10) for r in (1, 2, 3)] if epsilon else []
    write_run(folder, rounds=3, n_clients=2, class_names=("no", "yes"), more=more, **options)
    summary = json.loads((folder / "summary.json").read_text())
    if epsilon is not None:  # JSON has no infinity
        summary["privacy"] = {**PROMISE, "epsilon": None if epsilon == math.inf else epsilon}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_privacy_statement_names_all_that_a_reviewer_asks_for(tmp_path: Path) -> None:
    printed = report_run(with_promise(tmp_path / "run", 3.14112))  # printed no smaller than it is
    assert "Privacy: epsilon 3.142 at delta 1e-05 for one example of one client" in printed
    page = " ".join((tmp_path / "run" / "report.md").read_text().split())
    for fact in (
        "epsilon = 3.142 at delta = 1e-05",
        "one example of one client, added or removed",
        "accountant: prv",
        "clip norm 1, noise multiplier 1.25",
        "is added by each client",
        "comes from the run's seed",
        "Sampling: Poisson batches",
        "Not covered: measured figures",
    ):
        assert fact in page, fact
    assert (tmp_path / "run" / "plots" / "epsilon.png").is_file()


def test_a_run_without_a_promise_makes_no_statement(tmp_path: Path) -> None:
    printed = report_run(with_promise(tmp_path / "run", None))
    assert "rivacy" not in printed
    assert "Privacy" not in (tmp_path / "run" / "report.md").read_text()
    assert not (tmp_path / "run" / "plots" / "epsilon.png").exists()


def test_a_run_without_noise_says_that_nothing_is_promised(tmp_path: Path) -> None:
    printed = report_run(with_promise(tmp_path / "run", math.inf), plots=False)
    assert (
        "Privacy: nothing is promised for one example of one client, epsilon is infinite" in printed
    )
    page = " ".join((tmp_path / "run" / "report.md").read_text().split())
    assert "**Nothing is promised: epsilon is infinite** for one example of one client" in page
    assert "(clip norm 1, noise multiplier 1.25)" in page


def test_a_sweep_over_epsilon_is_a_table_and_a_picture(tmp_path: Path) -> None:
    for epsilon in (1.0, 8.0, math.inf, None):
        choice = {"privacy": "dp_sgd" if epsilon else "none"}
        config = {"privacy": {"target_epsilon": epsilon}}
        for seed in (0, 1):
            folder = tmp_path / f"{epsilon}-{seed}"
            with_promise(folder, epsilon, seed=seed, choices=choice, config=config)
    table = report_sweep([tmp_path], tmp_path)
    assert "| epsilon" in table
    assert "8.000 ± 0.000" in table
    assert "| inf " in table
    assert (tmp_path / "accuracy_by_epsilon.png").is_file()
    groups = configurations([load_run(path) for path in find_runs([tmp_path])])
    figure = accuracy_by_epsilon_figure(groups, "")
    assert figure is not None
    (line,) = figure.axes[0].containers
    assert line[0].get_xdata().tolist() == [1.0, 8.0]
    (legend,) = figure.legends or [figure.axes[0].get_legend()]
    labels = [text.get_text() for text in legend.get_texts()]
    assert {"the same without privacy", "the same at epsilon infinity"} <= set(labels)


def test_beside_an_accuracy_stands_whose_epsilon_it_is(tmp_path: Path) -> None:
    whose = {"dp_sgd": "one example of one client", "client_dp": "one client with all its data"}
    for name, unit in whose.items():
        for asked, reached in ((8, 7.99), (64, 64.0)):
            folder = tmp_path / f"{name}{asked}"
            config = {"privacy": {"target_epsilon": asked}, "rounds": 5 if name == "dp_sgd" else 3}
            with_promise(folder, reached, choices={"privacy": name}, config=config)
            summary = json.loads((folder / "summary.json").read_text())
            summary["privacy"]["unit"] = unit
            (folder / "summary.json").write_text(json.dumps(summary))
    groups = configurations([load_run(path) for path in find_runs([tmp_path])])
    figure = accuracy_by_epsilon_figure(groups, "")
    assert figure is not None
    labels = {text.get_text() for item in figure.legends for text in item.get_texts()}
    assert labels == {f"rounds=5 (for {whose['dp_sgd']})", f"rounds=3 (for {whose['client_dp']})"}
    assert written_at(figure.axes[0].xaxis) == ["7.99", "64"]
