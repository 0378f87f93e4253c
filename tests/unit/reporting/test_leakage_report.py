"""What studies of leakage found, in reports and pictures: tables by hand, real files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedexp.core.findings import Figure, Findings
from fedexp.reporting.figures import save
from fedexp.reporting.finding import find_runs
from fedexp.reporting.leakage import figure_table
from fedexp.reporting.leakage_images import (
    model_inversion_figure,
    sweep_classes_figure,
    sweep_reconstructions_figure,
    update_inversion_figure,
)
from fedexp.reporting.leakage_plots import (
    audit_figure,
    leakage_figures,
    noise_ladder_figure,
    roc_figure,
)
from fedexp.reporting.leakage_sweep import comparisons, leakage_table, noise_ladder
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.run_report import report_run
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import configurations
from fedexp.run_folder.findings import add_to_summary, read_findings, write_findings
from tests.support.pictures import drawn, legend
from tests.support.run_folders import write_run

FOUND = "reconstruction"


def figures(subject: str, metric: str, values: Sequence[float], round: int = 1) -> list[Figure]:
    return [Figure(subject, round, k, metric, value) for k, value in enumerate(values)]


def study_of(
    folder: Path,
    name: str = "dlg",
    rows: Sequence[Figure] = (),
    headline: Mapping[str, float] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """Put findings into a run folder, as a study of it does."""
    node = {"_target_": "fedexp.leakage.updates.inversion.UpdateInversion", **(settings or {})}
    found = Findings(figures=rows, headline=headline or {}, arrays=arrays or {}, **more)
    write_findings(folder, name, node, found, 1.5)
    add_to_summary(folder, name, found.headline)


def table_of(folder: Path) -> pd.DataFrame:
    (study,) = read_findings(folder)
    return figure_table(study)


def images(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((n, channels, 8, 8), dtype=np.float32)


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


# A run's table


def test_cells_are_means_with_intervals_over_the_targets(tmp_path: Path) -> None:
    rows = [
        # Of two values a quarter of all resamples is twice the first, a quarter twice the second.
        *figures(FOUND, "ssim", [0.0, 1.0]),
        *figures(FOUND, "psnr_db", [24.0, 24.0]),
        *figures("class mean", "ssim", [0.25]),
        *figures("class mean", "psnr_db", [math.nan, math.nan]),
    ]
    study_of(write_run(tmp_path / "r", rounds=1, n_clients=2), rows=rows)
    table = table_of(tmp_path / "r").set_index("subject")
    assert list(table) == ["SSIM", "PSNR (dB)"]  # one round, and as many values of each: no columns
    assert table.loc[FOUND].tolist() == ["0.5 [0.0126, 0.987]", "24 [24, 24]"]
    assert table.loc["class mean"].tolist() == ["0.25", "-"]


def test_the_interval_that_a_study_gives_itself_counts(tmp_path: Path) -> None:
    rows = [
        Figure(subject, round, target, "memorisation_gap", 0.1 * target)
        for subject, round in (("inversion", 2), ("inversion", 5), ("noise", 5))
        for target in (0, 2)
    ]
    ends = {"memorisation_gap_low": -0.3, "memorisation_gap_high": 0.4}
    write_run(tmp_path, rounds=1, n_clients=2)
    study_of(tmp_path, rows=rows, headline={"memorisation_gap": 0.1, **ends})
    table = table_of(tmp_path).set_index(["subject", "round"])["memorisation gap"]
    assert table["inversion", "5"] == "0.1 [-0.3, 0.4]"  # the latest round's
    assert table["inversion", "2"] == "0.1"  # pictures are no sample to draw from again
    assert table["noise", "5"] == "0.1"


def test_of_several_rounds_each_has_its_own_interval(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    rows = [*figures(FOUND, "psnr_db", [1.0, 3.0], 0), *figures(FOUND, "psnr_db", [5.0, 7.0], 9)]
    headline = {
        f"psnr_db{end}_at_round_{round}": mean + more
        for round, mean in ((0, 2.0), (9, 6.0))
        for end, more in (("", 0.0), ("_low", -0.5), ("_high", 0.5))
    }
    study_of(tmp_path, rows=rows, headline=headline)
    assert table_of(tmp_path).to_dict("list") == {
        "subject": [FOUND, FOUND],
        "round": ["0", "9"],
        "PSNR (dB)": ["2 [1.5, 2.5]", "6 [5.5, 6.5]"],
    }


def test_what_was_recovered_comes_first_and_the_untrained_model_last(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    subjects = [("untrained model", 0), ("noise", 3), ("class mean", 3), ("inversion", 3)]
    study_of(tmp_path, rows=[Figure(s, r, 0, "ssim", 0.5) for s, r in subjects])
    assert table_of(tmp_path)["subject"].tolist() == [
        *("inversion", "noise", "class mean", "untrained model")
    ]


def test_what_chance_gives_stands_beside_a_value(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    values = {"auc": 0.58123, "auc_null_low": 0.45, "auc_null_high": 0.55}
    rows = [Figure("LiRA", 3, 0, metric, value) for metric, value in values.items()]
    rows.append(Figure("model", 3, 0, "train_accuracy", 0.99))
    study_of(tmp_path, rows=rows)
    assert table_of(tmp_path).to_dict("list") == {
        "subject": ["LiRA", "model"],
        "AUC": ["0.581 (null 0.45 to 0.55)", ""],
        "train accuracy": ["", "0.99"],
    }


# A run's report


def test_a_report_has_adversary_table_and_conclusions(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=2, n_clients=2)
    for name in ("dlg", "geiping"):
        study_of(
            folder,
            name,
            figures(FOUND, "psnr_db", [24.0, 24.0]),
            adversary=f"A curious server, {name}.",
            conclusions=[f"Images leak, {name}."],
        )
    printed = report_run(folder, plots=False)
    page = (folder / "report.md").read_text()
    section = page.split("## Leakage\n")[1].split("\n## ")[0]
    for name in ("dlg", "geiping"):
        for text in (printed, section):
            assert f"A curious server, {name}." in text
            assert f"- Images leak, {name}." in text
            assert "UpdateInversion, round 1, 1.5 s. Mean [95 % interval] over 2 targets." in text
        assert f"### {name}" in section
    assert "| reconstruction | 24 [24, 24]" in section
    assert printed.count("24 [24, 24]") == 2


def test_a_study_without_figures_is_reported_all_the_same(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=1, n_clients=2)
    study_of(folder, conclusions=["Nothing was there to attack."])
    printed = report_run(folder)
    assert "Nothing was there to attack." in printed
    assert "Empty DataFrame" not in printed + (folder / "report.md").read_text()


def test_a_run_that_nobody_studied_is_reported_as_ever(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=2, n_clients=2)
    assert "eakage" not in report_run(folder) + (folder / "report.md").read_text()
    assert not list((folder / "plots").glob("leakage*"))
    text = report_sweep([tmp_path], tmp_path)
    assert "eakage" not in text
    assert not list(tmp_path.glob("leakage*"))


# A sweep


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


# The noise ladder


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


# Pictures


def inversion(n: int, channels: int, rounds: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    true = np.concatenate([images(n, channels)] * len(rounds))
    return {
        "targets": true,
        "reconstructions": images(len(true), channels, seed + 1),
        "psnr_db": np.arange(len(true)) + 10.0,
        "round": np.repeat(rounds, n),
    }


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_targets_stand_above_reconstructions_with_their_psnr(tmp_path: Path, channels: int) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    arrays = inversion(3, channels, rounds=(1, 9))
    study_of(tmp_path, arrays=arrays)
    run = load_run(tmp_path)
    figure = update_inversion_figure(run, run.leakage[0])
    assert figure is not None
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    assert len(shown) == 2 * 2 * 3
    assert {pixels.shape for pixels in shown} == {(8, 8, 3)}
    first = np.moveaxis(arrays["targets"][0], 0, -1)
    assert shown[0] == pytest.approx(np.broadcast_to(first, (8, 8, 3)))  # neither stretched nor cut
    below = np.moveaxis(arrays["reconstructions"][0], 0, -1)
    assert shown[3] == pytest.approx(np.broadcast_to(below, (8, 8, 3)))
    words = texts(figure)
    assert [word for word in words if "Round" in word] == ["Round 1", "Round 9"]
    assert [w for w in words if "dB" in w] == [f"{10 + k}.0 dB" for k in range(6)]
    assert drawn(save(figure, tmp_path / "images.png"))


@pytest.mark.usefixtures("real_pictures")
def test_of_many_images_the_first_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    study_of(tmp_path, arrays=inversion(20, 1, rounds=(1,)))
    run = load_run(tmp_path)
    figure = update_inversion_figure(run, run.leakage[0])
    assert figure is not None
    assert len(figure.axes[0].images) == 24
    with Image.open(save(figure, tmp_path / "images.png")) as picture:
        width, height = picture.size
    assert width > 1.8 * height  # twelve beside each other, two rows


def classes(seed: int) -> dict[str, np.ndarray]:
    return {
        "classes": np.array([0, 2]),
        "class_mean": images(2, 1, seed=0),
        "inverted": images(2, 1, seed=seed),
        "untrained": images(2, 1, seed=9),
    }


@pytest.mark.usefixtures("real_pictures")
def test_inverted_classes_stand_below_the_class_means(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2, class_names=("no", "?", "yes"))
    study_of(tmp_path, "model_inversion", arrays=classes(1))
    run = load_run(tmp_path)
    figure = model_inversion_figure(run, run.leakage[0])
    assert figure is not None
    assert len(figure.axes[0].images) == 6
    assert texts(figure)[-2:] == ["no", "yes"]
    assert "inverted" in texts(figure)
    assert drawn(save(figure, tmp_path / "classes.png"))


@pytest.mark.usefixtures("real_pictures")
def test_settings_of_a_sweep_stand_below_each_other(tmp_path: Path) -> None:
    for model in ("mlp", "cnn"):
        for seed in (0, 1):
            run = write_run(
                tmp_path / f"{model}-{seed}",
                seed=seed,
                rounds=1,
                n_clients=2,
                choices={"model": model},
            )
            study_of(run, "model_inversion", arrays=classes(seed + 1))
            study_of(run, "dlg", arrays=inversion(3, 1, (1,), seed=len(model) + seed))
    report_sweep([tmp_path], tmp_path)
    groups = configurations([load_run(path) for path in find_runs([tmp_path])])
    of_classes = sweep_classes_figure(groups, "")
    of_updates = sweep_reconstructions_figure(groups, "")
    assert of_classes is not None
    assert of_updates is not None
    assert len(of_classes.axes[0].images) == 2 * (1 + 2)  # means, then one seed of each setting
    assert len(of_updates.axes[0].images) == 3 * (1 + 2)  # the same targets are drawn once
    for figure in (of_classes, of_updates):
        assert {"model=cnn", "model=mlp"} <= set(texts(figure))
    first = np.asarray(of_classes.axes[0].images[2].get_array())[:, :, 0]
    assert first == pytest.approx(classes(1)["inverted"][0, 0])  # seed 0's
    assert drawn(tmp_path / "leakage_classes.png")
    assert drawn(tmp_path / "leakage_images.png")


def test_a_class_that_one_setting_lacks_stays_white(tmp_path: Path) -> None:
    for model in ("cnn", "mlp"):
        run = write_run(tmp_path / model, rounds=1, n_clients=2, choices={"model": model})
        arrays = classes(1)
        if model == "mlp":
            arrays = {name: array[1:] for name, array in arrays.items()}  # class 2 alone
        study_of(run, "model_inversion", arrays=arrays)
    groups = configurations([load_run(path) for path in find_runs([tmp_path])])
    figure = sweep_classes_figure(groups, "")
    assert figure is not None
    shown = [np.asarray(image.get_array())[:, :, 0] for image in figure.axes[0].images]
    assert (shown[4] == 1).all()
    assert shown[5] == pytest.approx(classes(1)["inverted"][1, 0])


@pytest.mark.usefixtures("real_pictures")
def test_roc_curves_share_log_axes_with_what_chance_gives(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    curve = {"fpr": np.array([0, 0.01, 0.5, 1]), "tpr": np.array([0, 0.2, 0.8, 1])}
    null = {"tpr_at_1_percent_fpr_null_low": 0.004, "tpr_at_1_percent_fpr_null_high": 0.03}
    study_of(tmp_path, "lira", arrays=curve, headline={"auc": 0.75, **null})
    study_of(tmp_path, "loss_threshold", arrays=curve, headline={"auc": 0.5})
    figure = roc_figure(load_run(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lira, loss, chance = axes.lines
    assert lira.get_xdata() == pytest.approx([1e-3, 0.01, 0.5, 1])  # zeros at the edge
    assert lira.get_ydata() == pytest.approx([1e-3, 0.2, 0.8, 1])
    assert lira.get_linestyle() != loss.get_linestyle()
    assert lira.get_color() != loss.get_color()
    assert chance.get_xdata() == pytest.approx(chance.get_ydata())
    corners = axes.collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.004, 0.03)
    assert corners[:, 0].min() < 0.01 < corners[:, 0].max() * 1.12
    assert "lira (AUC 0.750)" in legend(figure)
    assert drawn(save(figure, tmp_path / "roc.png"))


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize(("bound", "alarm"), [(2.5, True), (0.3, False)])
def test_an_audit_says_whether_the_claim_is_ruled_out(
    tmp_path: Path, bound: float, alarm: bool
) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    scores = np.random.default_rng(0).normal(size=40)
    study_of(
        tmp_path,
        "audit",
        arrays={"scores_in": scores + 2, "scores_out": np.append(scores, np.nan)},
        headline={"epsilon_lower_bound": bound, "epsilon_claimed": 1.0},
    )
    run = load_run(tmp_path)
    figure = audit_figure(run, run.leakage[0])
    assert figure is not None
    title = figure.axes[0].get_title(loc="left")
    assert title.startswith(f"epsilon is at least {bound}, claimed is 1:")
    assert ("ALARM" in title) == alarm
    assert "canaries that were out (40)" in legend(figure)
    assert drawn(save(figure, tmp_path / "audit.png"))


@pytest.mark.usefixtures("real_pictures")
def test_every_picture_lands_among_the_plots_of_the_run(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    study_of(tmp_path, "dlg", arrays=inversion(2, 3, (1,)))
    study_of(tmp_path, "model_inversion", arrays=classes(1))
    study_of(tmp_path, "audit", arrays={"scores_in": np.ones(3), "scores_out": np.ones(3)})
    study_of(tmp_path, "loss_threshold", arrays={"fpr": np.array([0, 1]), "tpr": np.array([0, 1])})
    study_of(tmp_path, "silent")
    report_run(tmp_path)
    names = {"leakage_dlg", "leakage_model_inversion", "leakage_audit", "leakage_roc"}
    assert set(leakage_figures(load_run(tmp_path))) == names
    assert {path.stem for path in (tmp_path / "plots").glob("leakage*")} == names
    assert all(drawn(path) for path in (tmp_path / "plots").glob("leakage*"))
    page = (tmp_path / "report.md").read_text()
    assert all(f"![{name}](plots/{name}.png)" in page for name in names)
