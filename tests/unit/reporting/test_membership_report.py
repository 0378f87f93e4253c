"""One table of who can tell members from others, of a run and of a sweep."""

import pytest

from fedexp.core.findings import Figure, Findings
from fedexp.reporting.membership import membership_sweep, membership_table
from fedexp.reporting.report import report_run
from fedexp.reporting.results import load_run
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import configurations
from fedexp.reporting.utility_and_leak import utility_and_leak
from fedexp.run_folder.findings import add_to_summary, read_findings, write_findings
from tests.support.run_folders import write_run

ENDS = {"_low": -0.02, "_high": 0.02}


def attack(subject, auc, rate=0.05, round=4):
    """The rows of one attack, whose null interval is 0.48 to 0.52."""
    values = {"auc": auc, "auc_null_low": 0.48, "auc_null_high": 0.52}
    values |= {f"auc{end}": auc + width for end, width in ENDS.items()}
    values |= {"tpr_at_1_percent_fpr": rate, "tpr_at_0.1_percent_fpr": float("nan")}
    return [Figure(subject, round, 0, metric, value) for metric, value in values.items()]


def studied(folder, auc, seed=0, **options):
    write_run(folder, rounds=2, n_clients=2, seed=seed, **options)
    rows = [
        *attack("client known", 0.6, round=1),
        *attack("client known", auc),
        *(
            Figure("client known, by class", 4, k, "auc", value)
            for k, value in enumerate((0.6, 0.8))
        ),
        *attack("other client", 0.5),
        Figure("model", 4, 0, "train_accuracy", 0.9),
    ]
    names = {"": "server", "other client": "other client"}
    found = Findings(rows, {"auc": auc}, adversaries=names, seconds_before=2.0)
    write_findings(folder, "server_membership", {"_target_": "a.ServerMembership"}, found, 1.5)
    add_to_summary(folder, "server_membership", found.headline)
    return folder


def test_a_row_is_an_attack_by_a_named_adversary(tmp_path):
    table = membership_table(load_run(studied(tmp_path / "r", 0.75)))
    assert table["adversary"].tolist() == ["server", "other client"]
    known = table.iloc[0]
    assert known["attack"] == "client known"
    assert known["AUC"] == "0.750 [0.730, 0.770], chance 0.480 to 0.520"  # the latest round's
    assert known["class-balanced AUC"] == "0.700"
    assert known["TPR at 0.1 % FPR"] == "too few non-members"
    assert known["study's seconds"] == "3.5"  # with what it took while the run went on
    assert table.iloc[1]["class-balanced AUC"] == "-"


def test_a_sweep_has_means_over_seeds_and_counts_what_is_chance(tmp_path):
    runs = [load_run(studied(tmp_path / f"seed={s}", auc, s)) for s, auc in enumerate((0.7, 0.8))]
    table = membership_sweep(configurations(runs))
    assert table["adversary"].tolist() == ["server", "other client"]
    assert table["runs"].tolist() == ["2", "2"]
    assert table["AUC"].tolist() == ["0.750 ± 0.071", "0.500 ± 0.000"]
    assert table["AUC inside chance"].tolist() == ["0 of 2", "2 of 2"]
    printed = report_sweep([tmp_path], tmp_path)
    assert "### Membership, by adversary" in printed
    assert (tmp_path / "membership.csv").is_file()


def test_it_stands_in_the_report(tmp_path):
    folder = studied(tmp_path / "r", 0.75)
    assert "Membership, by adversary:" in report_run(folder, plots=False)
    assert "## Membership, by adversary" in (folder / "report.md").read_text()


def test_a_run_without_such_a_study_has_none(tmp_path):
    folder = write_run(tmp_path / "r", rounds=1, n_clients=2)
    assert membership_table(load_run(folder)).empty
    report_run(folder, plots=False)
    assert "Membership" not in (folder / "report.md").read_text()


@pytest.mark.parametrize(("subject", "name"), [("other client", "other client"), ("x", "server")])
def test_names_come_back_from_the_disk(tmp_path, subject, name):
    (found,) = read_findings(studied(tmp_path / "r", 0.75))
    assert found.adversary_of(subject) == name


def of_attack(folder, name, seed, auc, psnr_db):
    """A run under an attack with two studies of it."""
    studied(folder, auc, seed, choices={"attack": name})
    found = Findings([Figure("reconstruction", 4, 0, "psnr_db", psnr_db)], {"psnr_db": psnr_db})
    write_findings(folder, "geiping", {"_target_": "a.UpdateInversion"}, found, 1.0)
    add_to_summary(folder, "geiping", found.headline)
    return load_run(folder)


def test_worth_and_leak_stand_in_one_row_and_a_swept_attack_keeps_its_name(tmp_path):
    runs = [
        of_attack(tmp_path / f"{name}-{seed}", name, seed, auc + seed / 10, 30.0 + seed)
        for name, auc in (("none", 0.6), ("sign_flip", 0.5))
        for seed in (0, 1)
    ]
    groups = configurations(runs)
    table = utility_and_leak(groups)
    assert table["attack"].tolist() == ["none", "sign_flip"]
    assert table["seeds"].tolist() == ["2", "2"]
    assert table["server_membership: AUC"].tolist() == ["0.650 ± 0.071", "0.550 ± 0.071"]
    assert table["geiping: PSNR (dB)"].tolist() == ["30.5 ± 0.7"] * 2
    assert (table["test accuracy"] != "").all()
    assert set(membership_sweep(groups)["attack"]) == {"none", "sign_flip"}
    assert "### What is learned, and what leaks" in report_sweep([tmp_path], tmp_path)
    assert (tmp_path / "utility_and_leak.csv").is_file()


def test_one_study_has_its_own_table_only(tmp_path):
    runs = [load_run(studied(tmp_path / f"seed={s}", 0.7, s)) for s in (0, 1)]
    assert utility_and_leak(configurations(runs)).empty
