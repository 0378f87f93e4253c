"""scripts/paired_seeds.py: differences of a sweep's runs, seed by seed."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.run_folders import write_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "paired_seeds.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paired_seeds", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder: Path, accuracy: dict[tuple[str, str], tuple[float, ...]]) -> None:
    for (rule, partition), values in accuracy.items():
        for seed, value in enumerate(values):
            write_run(
                folder / f"{rule}{partition}{seed}",
                seed=seed,
                rounds=1,
                n_clients=2,
                choices={"aggregator": rule, "partition": partition},
                final={"accuracy": value},
            )


def test_the_interval_of_three_pairs_by_hand(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    iid = {("mean", "iid"): (0.50, 0.60, 0.70), ("median", "iid"): (0.52, 0.64, 0.76)}
    more = {("mean", "classes"): (0.9, 0.9), ("median", "classes"): (0.8, 0.7)}
    write(tmp_path, iid | more)
    assert script.main([str(tmp_path), "aggregator", "mean", "median"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    by_partition = {row["partition"]: row for row in table}
    row = by_partition["iid"]
    assert (row["mean"], row["mean ±"], row["median"]) == ("0.600", "0.100", "0.640")
    # 0.04 ± 4.3027 * 0.02 / sqrt(3)
    found = (row["difference"], row["difference low"], row["difference high"])
    assert found == ("+0.040", "-0.010", "+0.090")
    assert row["seeds"] == "3"
    assert by_partition["classes"]["difference"] == ""  # of two seeds


def test_seeds_that_only_one_has_are_left_out(script: ModuleType) -> None:
    first = {0: 0.1, 1: 0.2, 2: 0.3, 7: 0.9}
    second = {0: 0.2, 1: 0.3, 2: 0.5, 8: 0.0}
    assert script.difference(first, second)["difference"] == "+0.133"


def test_nothing_in_common_is_said(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, {("mean", "iid"): (0.5, 0.6)})
    assert script.main([str(tmp_path), "aggregator", "mean", "median"]) == 1
    assert "no runs that have aggregator=mean and median" in capsys.readouterr().err
    assert script.main([]) == 2


@pytest.mark.parametrize("key", ["training.lr", "lr"])
def test_a_dotted_key_is_named_as_the_sweep_named_it(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    for rate in (0.1, 0.2):
        write_run(tmp_path / str(rate), rounds=1, n_clients=2, config={"training.lr": rate})
    assert script.main([str(tmp_path), key, "0.1", "0.2"]) == 0
    assert capsys.readouterr().out.startswith("0.1,0.1 ±,0.2,0.2 ±,difference")


def test_repeats_of_a_seed_count_as_one(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("a", 0.6), ("b", 0.8)):
        write_run(tmp_path / name, rounds=1, n_clients=2, final={"accuracy": value})
    other = {"aggregator": "median"}
    write_run(tmp_path / "c", rounds=1, n_clients=2, choices=other, final={"accuracy": 0.5})
    assert script.main([str(tmp_path), "aggregator", "mean", "median"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("0.700,")


def test_a_folder_that_is_not_there_is_told_in_a_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path / "slip"), "aggregator", "mean", "median"]) == 2
    assert capsys.readouterr().err.endswith("there is no such folder\n")
