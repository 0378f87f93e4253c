"""What the rows of a comparison do not have in common is said: seeds, data and versions."""

import json

import pytest

from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import configurations
from fedexp.reporting.unlike import unlike
from tests.support.run_folders import write_failed, write_run
from tests.support.sweep_folders import load


def write(folder, rule, seed, data="d", dataset="mnist", **machine):
    choices = {"aggregator": rule, "dataset": dataset}
    path = write_run(
        folder / f"{rule},{dataset},{seed},{data}", seed=seed, rounds=2, choices=choices
    )
    machine = {"from_round": 1, "fedexp": "0.2.0", "threads": "1", **machine}
    (path / "origin.json").write_text(json.dumps({"data": data, "stretches": [machine]}))


def said(folder):
    return unlike(configurations(load(folder)))


def test_rows_of_other_seeds_are_named(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "mean", seed)
        write(tmp_path, "median", seed)
        write(tmp_path, "krum", seed + 2)
    [sentence] = said(tmp_path)
    assert sentence.startswith("seeds: 2, 3 in 1 row; 0, 1 in 2 rows.")
    assert sentence in report_sweep([tmp_path], tmp_path)
    assert "## Not in common" in (tmp_path / "table.md").read_text()
    assert "2, 3 in 1 row" in (tmp_path / "report.html").read_text()


def test_a_seed_that_failed_is_missing_in_its_row_alone(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "mean", seed)
        write(tmp_path, "median", seed)
    write_failed(tmp_path / "median,mnist,1,d", "broke")
    [sentence] = said(tmp_path)
    assert "0, 1 in 1 row; 0 in 1 row" in sentence


def test_other_data_of_one_name_are_told(tmp_path):
    write(tmp_path, "mean", 0, data="before")
    write(tmp_path, "mean", 0, data="after")
    [sentence] = said(tmp_path)
    assert sentence.startswith("data: ")


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({"fedexp": "0.3.0"}, "computed on: fedexp 0.2.0, 0.3.0. Last digits differ, at least"),
        ({"threads": "2"}, None),
    ],
)
def test_versions_are_told_and_threads_are_not(tmp_path, machine, expected):
    write(tmp_path, "mean", 0)
    write(tmp_path, "median", 0, **machine)
    assert said(tmp_path) == ([expected] if expected else [])


def test_what_was_varied_is_no_remark(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "mean", seed, data="a")
        write(tmp_path, "median", seed, data="a")
        write(tmp_path, "mean", seed, data="b", dataset="digits")
    assert said(tmp_path) == []
