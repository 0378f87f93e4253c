"""What studies of leakage found, in the report of a run: tables by hand."""

from __future__ import annotations

import math
from pathlib import Path

from fedexp.core.findings import Figure
from fedexp.reporting.run_report import report_run
from fedexp.reporting.sweep_report import report_sweep
from tests.support.findings import FOUND, figures, study_of, table_of
from tests.support.run_folders import write_run


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
