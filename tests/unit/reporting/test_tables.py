"""Tables over runs: what differs, means and deviations by hand, and what is left out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedexp.reporting.comparison import comparison_figure
from fedexp.reporting.tables import (
    Configuration,
    configurations,
    differing_keys,
    markdown,
    run_table,
    summary_table,
)
from tests.support.run_folders import write_run
from tests.support.sweep_folders import load, write_two_rules


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_two_rules(tmp_path_factory.mktemp("sweep"))


def test_differing_keys_name_groups_by_choice_and_parameters_by_dots() -> None:
    base = {
        "seed": 0,
        "choices": {"attack": "none", "aggregator": "mean", "hydra/launcher": "basic"},
        "attack": {"_target_": "None"},
        "aggregator": {"_target_": "Mean"},
        "training": {"lr": 0.1, "layers": [10, 20]},
        "paths": {"output": "a"},
    }
    other = {
        **base,
        "choices": {"attack": "alie", "aggregator": "mean", "hydra/launcher": "joblib"},
        "attack": {"_target_": "Alie", "z": 1.0, "n_malicious": 2},
        "training": {"lr": 0.1, "layers": [10, 30]},
        "paths": {"output": "b"},
    }
    assert differing_keys([base, base]) == []
    assert differing_keys([base, other]) == ["attack", "training.layers"]
    # A parameter that differs within one choice tells two jobs apart, and has to be shown.
    stronger = {**other, "attack": {**other["attack"], "z": 2.0}}
    assert differing_keys([base, other, stronger]) == ["attack", "training.layers", "attack.z"]


def test_a_job_without_a_config_makes_nothing_differ(sweep: Path) -> None:
    table = run_table(load(sweep))
    assert list(table)[:4] == ["job", "aggregator", "seed", "status"]
    lost = table.set_index("job").loc["aggregator=mean,seed=3"]
    assert (lost["aggregator"], lost["seed"], lost["status"]) == ("?", "?", "failed")


def test_the_mean_of_the_last_rounds_is_a_column_where_a_run_asked_for_it(tmp_path: Path) -> None:
    for seed, mean in enumerate((0.8, 0.9)):
        folder = write_run(tmp_path / f"asks,seed={seed}", seed=seed)
        summary = json.loads((folder / "summary.json").read_text())
        summary["mean_last_rounds"] = {"test": {"accuracy": mean}}
        (folder / "summary.json").write_text(json.dumps(summary))
    asks = load(tmp_path)
    table = run_table(asks)
    assert table["test_accuracy_last_rounds"].tolist() == [0.8, 0.9]
    summary = summary_table(asks)
    assert summary["test_accuracy_last_rounds_mean"].item() == pytest.approx(0.85)
    assert "mean of last rounds" in markdown(asks)


def test_who_asked_for_no_last_rounds_is_shown_none(sweep: Path) -> None:
    assert run_table(load(sweep))["test_accuracy_last_rounds"].isna().all()
    assert "mean of last rounds" not in markdown(load(sweep))


def test_run_table_has_one_row_a_job(sweep: Path) -> None:
    table = run_table(load(sweep)).set_index("job")
    assert len(table) == 7
    assert table.loc["aggregator=mean,seed=1", "test_accuracy"] == 0.94
    assert table.loc["aggregator=mean,seed=1", "seconds"] == 12.3
    assert math.isnan(table.loc["aggregator=krum,seed=1", "test_accuracy"])
    assert table.loc["aggregator=krum,seed=1", "error"].startswith("aggregator.f=9")


def test_summary_means_and_deviations_by_hand(sweep: Path) -> None:
    summary = summary_table(load(sweep)).set_index("aggregator")
    # 0.90, 0.94, 0.98: mean 0.94, squared deviations 0.0016 + 0 + 0.0016 over n - 1 = 2.
    assert summary.loc["mean", "n"] == 3
    assert summary.loc["mean", "test_accuracy_mean"] == pytest.approx(0.94)
    assert summary.loc["mean", "test_accuracy_sd"] == pytest.approx(0.04)
    # 0.80, 0.82: mean 0.81, deviation sqrt(0.0001 + 0.0001).
    assert summary.loc["krum", "n"] == 2
    assert summary.loc["krum", "failed"] == 1
    assert summary.loc["krum", "test_accuracy_sd"] == pytest.approx(math.sqrt(0.0002))
    assert summary.loc["?", "failed"] == 1
    assert summary.loc["?", "n"] == 0


def test_one_seed_has_no_deviation_and_a_repeat_of_it_is_not_a_second(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), seed=0, rounds=2, final={"accuracy": 0.9})
    (row,) = summary_table(load(tmp_path)).to_dict("records")
    assert row["n"] == 1
    assert row["test_accuracy_mean"] == 0.9
    assert math.isnan(row["test_accuracy_sd"])


def test_a_mean_over_fewer_seeds_than_n_is_blank(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0, rounds=2)
    write_run(tmp_path / "1", seed=1, rounds=2, auc=False)
    (row,) = summary_table(load(tmp_path)).to_dict("records")
    assert row["n"] == 2
    assert math.isnan(row["test_auc_mean"])
    assert not math.isnan(row["test_macro_f1_mean"])


def test_unfinished_runs_are_counted_not_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0, rounds=2, final={"accuracy": 0.9})
    write_run(tmp_path / "1", seed=1, rounds=2, final={"accuracy": 0.1}, status="interrupted")
    (group,) = configurations(load(tmp_path))
    assert (len(group.complete), group.failed, group.unfinished) == (1, 0, 1)
    (row,) = summary_table(load(tmp_path)).to_dict("records")
    assert row["test_accuracy_mean"] == 0.9
    assert "| 1     | interrupted |" in markdown(load(tmp_path))


def test_markdown_shows_spreads_and_every_failed_job(sweep: Path) -> None:
    text = markdown(load(sweep))
    assert "0.940 ± 0.040" in text
    assert "0.810 ± 0.014" in text
    assert "unfinished" not in text
    left_out = text.split("Not in these means:")[1]
    assert "aggregator=krum,seed=1" in left_out
    assert r"needs n >= 2f + 3 \| have 10" in left_out
    assert "no space left on device" in left_out


def test_repeats_of_a_seed_count_as_one_in_tables_and_in_curves_alike(tmp_path: Path) -> None:
    for name, seed, accuracy in (("a", 0, 0.6), ("b", 0, 0.8), ("c", 1, 0.9)):
        write_run(tmp_path / name, seed=seed, rounds=2, final={"accuracy": accuracy})
    runs = load(tmp_path)
    [group] = configurations(runs)
    figures = group.by_seed(lambda run: run.final("test", "accuracy"))
    assert figures.to_dict() == pytest.approx({"0": 0.7, "1": 0.9})
    summary = summary_table(runs)
    assert summary["test_accuracy_mean"].item() == pytest.approx(figures.mean())
    assert summary["test_accuracy_sd"].item() == pytest.approx(figures.std())
    curves = group.curves_by_seed(lambda run: run.curve("test", "accuracy"))
    first, second = (run.curve("test", "accuracy") for run in runs[:2])
    assert curves["0"].tolist() == pytest.approx(((first + second) / 2).tolist())
    assert list(curves) == ["0", "1"]
    assert list(curves.index) == [1, 2]
    [row] = comparison_figure([group]).axes[1].lines[1:2]
    assert sorted(row.get_xdata()) == pytest.approx([0.7, 0.9])


def test_a_configuration_without_a_complete_run_has_no_figures_by_seed(sweep: Path) -> None:
    group = Configuration({}, tuple(run for run in load(sweep) if not run.complete))
    assert group.runs
    assert group.by_seed(lambda run: run.final("test", "accuracy")).empty
    assert group.curves_by_seed(lambda run: run.curve("test", "accuracy")).empty
