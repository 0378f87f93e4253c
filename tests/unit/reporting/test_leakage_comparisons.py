"""What studies found over a sweep: settings compared seed by seed, and ladders of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedexp.reporting.figures import save
from fedexp.reporting.finding import find_runs
from fedexp.reporting.leakage_plots import (
    noise_ladder_figure,
)
from fedexp.reporting.leakage_sweep import comparisons, leakage_table, noise_ladder
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import configurations
from tests.support.findings import FOUND, figures, study_of
from tests.support.pictures import drawn, legend
from tests.support.run_folders import write_run


def sweep(
    folder: Path, psnr_db: Mapping[tuple[str, str], Sequence[float]], **beside: float
) -> list[Run]:
    """Runs of (setting, model) with a PSNR for each seed, and other figures the same for all."""
    for (setting, model), values in psnr_db.items():
        for seed, value in enumerate(values):
            run = write_run(
                folder / f"{setting}-{model}-{seed}",
                seed=seed,
                rounds=1,
                n_clients=2,
                setting=setting,
                choices={"model": model},
                final={"accuracy": 0.9 + seed / 100},
            )
            headline = {"psnr_db": value, "psnr_db_low": value - 1, "psnr_db_high": value + 1}
            rows = figures(FOUND, "psnr_db", [value])
            study_of(run, "geiping", rows, headline=headline | {"n_images": 7} | beside)
    return [load_run(path) for path in find_runs([folder])]


def compared(runs: Sequence[Run]) -> list[str]:
    return comparisons(configurations(runs), "geiping", most=12)


def test_means_over_the_seeds_stand_beside_the_accuracy(tmp_path: Path) -> None:
    values = {("federated", "mlp"): (10.0, 12.0, 14.0), ("federated", "cnn"): (7.0,)}
    runs = sweep(tmp_path, values)
    text = report_sweep([tmp_path], tmp_path)
    section = text.split("## Leakage\n")[1]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    # 10, 12, 14: mean 12, deviation 2; accuracies 0.90, 0.91, 0.92: mean 0.91, deviation 0.01.
    assert cells[0] == ["model", "seeds", "test accuracy", "PSNR (dB)"]
    assert cells[2:] == [
        ["cnn", "1", "0.900", "7.0"],
        ["mlp", "3", "0.910 ± 0.010", "12.0 ± 2.0"],
    ]
    assert "12.0 ± 2.0" in (tmp_path / "table.md").read_text()

    table = pd.read_csv(tmp_path / "leakage.csv")
    assert len(table) == 4 * 4
    row = table[(table["job"] == "federated-mlp-2") & (table["metric"] == "psnr_db")].iloc[0]
    assert (row["model"], row["seed"], row["test_accuracy"]) == ("mlp", 2, 0.92)
    assert (row["study"], row["value"]) == ("geiping", 14.0)
    assert len(leakage_table(runs)) == len(table)


def test_settings_are_compared_by_the_paired_differences_over_the_seeds(tmp_path: Path) -> None:
    # Differences 1.9, 2.0, 2.1: mean 2, s 0.1, and t(0.975, 2) = 4.3027: 2 +- 0.2484.
    runs = sweep(
        tmp_path,
        {("federated", "mlp"): (8.0, 18.0, 28.0), ("federated", "cnn"): (9.9, 20.0, 30.1)},
    )
    (sentence,) = compared(runs)
    assert sentence == (
        "PSNR (dB): model=cnn leaks more than model=mlp: 20.0 against 18.0, difference +2.0 "
        "[+1.8, +2.2] over 3 seeds, at test accuracies 0.910 and 0.910."
    )


def test_below_what_guessing_gives_nothing_leaks_more_than_anything_else(tmp_path: Path) -> None:
    values = {("federated", "mlp"): (8.0, 18.0, 28.0), ("federated", "cnn"): (9.9, 20.0, 30.1)}
    (sentence,) = compared(sweep(tmp_path, values, best_baseline_psnr_db=20.5))
    assert sentence.startswith(
        "PSNR (dB): by this measure neither model=cnn nor model=mlp gives away more than guessing, "
        "which reaches 20.5: "
        "20.0 against 18.0, difference +2.0"
    )


def test_settings_that_seeds_do_not_tell_apart_are_called_so(tmp_path: Path) -> None:
    # Differences 1, 2, 3: mean 2, s 1: 2 +- 2.484.
    runs = sweep(
        tmp_path,
        {("federated", "mlp"): (8.0, 18.0, 28.0), ("federated", "cnn"): (9.0, 20.0, 31.0)},
    )
    (sentence,) = compared(runs)
    assert "model=cnn and model=mlp are not told apart" in sentence
    assert "difference +2.0 [-0.5, +4.5] over 3 seeds" in sentence


def test_settings_that_leak_the_same_are_called_so(tmp_path: Path) -> None:
    same = (8.0, 18.0, 28.0)
    (sentence,) = compared(sweep(tmp_path, {("federated", m): same for m in ("mlp", "cnn")}))
    assert "model=cnn and model=mlp leak the same, seed by seed" in sentence


def test_only_settings_that_differ_in_one_thing_are_compared(tmp_path: Path) -> None:
    base = np.array([10.0, 12.0, 14.0])
    runs = sweep(
        tmp_path,
        {
            (setting, model): base + 3 * (setting == "centralised") + 5 * (model == "cnn")
            for setting in ("federated", "centralised")
            for model in ("mlp", "cnn")
        },
    )
    sentences = compared(runs)
    assert len(sentences) == 4  # of six pairs
    assert all("leaks more" in sentence for sentence in sentences)
    assert sum("model=cnn leaks more than model=mlp" in s for s in sentences) == 2
    assert sum("setting=centralised leaks more than setting=federated" in s for s in sentences) == 2
    assert any(", at model=mlp: setting=centralised" in s for s in sentences)


def test_a_parameter_of_a_group_chosen_differently_is_no_second_difference(tmp_path: Path) -> None:
    for name, choice, noise in (("a", "none", None), ("b", "dp_sgd", 1.0), ("c", "dp_sgd", 2.0)):
        for seed in range(3):
            folder = write_run(
                tmp_path / f"{name}-{seed}",
                seed=seed,
                rounds=1,
                n_clients=2,
                choices={"privacy": choice},
                config={"privacy.noise_multiplier": noise} if noise else None,
            )
            study_of(folder, "geiping", headline={"psnr_db": 30.0 - 10 * (noise or 0)})
    sentences = compared([load_run(path) for path in find_runs([tmp_path])])
    assert [sentence.split(": ")[1] for sentence in sentences] == [
        "privacy=none leaks more than privacy=dp_sgd, noise_multiplier=1.0",
        "privacy=none leaks more than privacy=dp_sgd, noise_multiplier=2.0",
        "noise_multiplier=1.0 leaks more than noise_multiplier=2.0",
    ]


def test_fewer_than_three_seeds_compare_nothing(tmp_path: Path) -> None:
    # Four runs each, but of two seeds in common only.
    runs = sweep(tmp_path, {("federated", "mlp"): (1.0, 2.0), ("federated", "cnn"): (9.0, 9, 9)})
    (sentence,) = compared(runs)
    assert sentence.startswith("Too few seeds: 1 comparison(s)")


def test_more_comparisons_than_can_be_read_are_counted(tmp_path: Path) -> None:
    values = {("federated", f"m{k}"): (1.0 * k, 2.0 * k, 3.0 * k) for k in range(4)}
    groups = configurations(sweep(tmp_path, values))
    sentences = comparisons(groups, "geiping", most=4)
    assert len(sentences) == 5  # of six
    assert sentences[-1] == "2 more comparisons can be made from leakage.csv."


def test_a_run_that_is_not_complete_is_left_out(tmp_path: Path) -> None:
    sweep(tmp_path, {("federated", "mlp"): (1.0, 2.0)})
    folder = write_run(tmp_path / "late", seed=2, rounds=1, n_clients=2, status="interrupted")
    study_of(folder, "geiping", headline={"psnr_db": 99.0})
    report_sweep([tmp_path], tmp_path)
    assert pd.read_csv(tmp_path / "leakage.csv")["value"].max() < 90


def test_the_next_report_without_studies_takes_their_files_away(tmp_path: Path) -> None:
    sweep(tmp_path, {("federated", "mlp"): (1.0, 2.0)})
    out = tmp_path / "out"
    report_sweep([tmp_path / "federated-mlp-0"], folder=out)
    assert (out / "leakage.csv").is_file()
    write_run(tmp_path / "other", rounds=1, n_clients=2)
    report_sweep([tmp_path / "other"], folder=out)
    assert not (out / "leakage.csv").exists()


def ladder(folder: Path, levels: Mapping[str, Mapping[str, Any]]) -> None:
    """One study a level, with two images of PSNR 20 / (1 + noise) -+ 1 and its labels."""
    for name, settings in levels.items():
        noise = float(settings["exposure"]["noise_multiplier"] or 0)
        middle = 20 / (1 + noise)
        rows = [
            *figures(FOUND, "psnr_db", [middle - 1, middle + 1]),
            *figures(FOUND, "labels_recovered", [1.0, 1.0]),
            *figures("class mean", "psnr_db", [12.0, 13.0]),
            *figures(FOUND, "ssim", [0.5, 0.5]),
        ]
        study_of(folder, name, rows, settings=settings)


def at_noise(noise: float | None) -> dict[str, Any]:
    return {"exposure": {"noise_multiplier": noise, "clip_norm": 1.0}, "attack": {"lr": 0.1}}


@pytest.mark.usefixtures("real_pictures")
def test_a_ladder_of_noise_in_one_run(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    ladder(tmp_path, {f"dlg_{z:g}": at_noise(z) for z in (0.0, 1.0, 4.0)})
    ladder(tmp_path, {"plain": at_noise(None)})  # no noise is known: on no ladder
    table = noise_ladder([load_run(tmp_path)])
    assert set(table["line"]) == {"dlg"}
    images = table[(table["subject"] == FOUND) & (table["metric"] == "psnr_db")]
    assert images[["noise", "mean", "low", "high"]].to_numpy().tolist() == [
        [0, 20, 19, 21],
        [1, 10, 9, 11],
        [4, 4, 3, 5],
    ]
    assert set(table["metric"]) == {"psnr_db", "labels_recovered"}

    figure = noise_ladder_figure([load_run(tmp_path)], "subtitle")
    assert figure is not None
    upper, lower = figure.axes
    assert upper.get_xscale() == "symlog"
    assert upper.lines[0].get_xdata().tolist() == [0, 1, 4]
    assert upper.lines[0].get_ydata().tolist() == [20, 10, 4]
    assert upper.lines[1].get_ydata() == [12.5, 12.5]  # the guess, across
    assert lower.lines[0].get_ydata().tolist() == [1, 1, 1]
    assert "guess: class mean (12.5 dB)" in legend(figure)
    assert drawn(save(figure, tmp_path / "ladder.png"))


def test_a_ladder_over_a_sweep_pools_the_seeds_and_parts_the_settings(tmp_path: Path) -> None:
    for model in ("mlp", "cnn"):
        for noise in (0.5, 2.0):
            for seed in (0, 1):
                folder = write_run(
                    tmp_path / f"{model}-{noise}-{seed}",
                    seed=seed,
                    rounds=1,
                    n_clients=2,
                    choices={"model": model, "privacy": "dp_sgd"},
                    config={"privacy.noise_multiplier": noise},
                )
                psnr_db = figures(FOUND, "psnr_db", [10 * noise + seed])
                study_of(folder, "dlg", psnr_db, settings=at_noise(None))
    table = noise_ladder([load_run(path) for path in find_runs([tmp_path])])
    assert sorted(table["line"].unique()) == ["dlg, model=cnn", "dlg, model=mlp"]
    assert table[table["line"] == "dlg, model=mlp"][["noise", "mean"]].to_numpy().tolist() == [
        [0.5, 5.5],
        [2.0, 20.5],
    ]


def test_one_level_of_noise_is_no_ladder(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    ladder(tmp_path, {"dlg": at_noise(0.5)})
    assert noise_ladder_figure([load_run(tmp_path)], "") is None


def test_settings_with_guesses_are_compared_by_the_seeds_that_both_have(tmp_path: Path) -> None:
    """As in a sweep that was broken off."""
    values = {("federated", "mlp"): (20.0, 21.0, 22.0, 23.0), ("federated", "cnn"): (10.0, 11, 12)}
    (sentence,) = compared(sweep(tmp_path, values, best_baseline_psnr_db=5.0))
    assert "model=mlp leaks more than model=cnn" in sentence
