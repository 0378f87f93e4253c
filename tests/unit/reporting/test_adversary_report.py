"""What the report of a run says of attack and defence."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from fedexp.reporting.adversary import adversary_facts, detection
from fedexp.reporting.report import report
from fedexp.reporting.results import load_run
from fedexp.reporting.run_report import report_run
from tests.support.attacked_runs import UPDATES, of_a_detector, of_an_attack, run_with
from tests.support.run_folders import write_run


def test_the_figures_of_a_detector_by_hand(tmp_path: Path) -> None:
    facts = adversary_facts(run_with(tmp_path, of_a_detector()))
    assert facts["caught"] == "2 of 4 malicious updates (50.0 %)"
    assert facts["missed"] == "2 of 4 malicious updates (50.0 %)"
    assert facts["false alarms"] == "2 of 6 honest updates (33.3 %)"
    assert facts["AUC of the detector's scores"].startswith("0.8333 ")


def test_without_an_adversary_all_updates_are_honest(tmp_path: Path) -> None:
    rows = [row for row in of_a_detector() if row[3] != "malicious"]
    facts = adversary_facts(run_with(tmp_path, rows, choices={"attack": "none"}))
    assert facts["caught"] == "0 of 0 malicious updates"
    assert facts["false alarms"] == "4 of 10 honest updates (40.0 %)"
    assert not any("AUC" in name for name in facts)


def test_rounds_without_an_opinion_do_not_count_and_an_infinite_score_does(tmp_path: Path) -> None:
    rows = [row for row in of_a_detector((3,)) if row[2:4] != ("4", "score")]
    rows.append((3, "update", "4", "score", math.nan))  # recorded so
    rows += [(2, "update", str(client), "malicious", 0.0) for client in UPDATES]
    found = detection(run_with(tmp_path, rows))
    assert found is not None
    assert (found.caught, found.malicious, found.honest) == (1, 2, 3)
    assert found.auc == pytest.approx(2 / 3)  # 3.0 against 1.0, 2.0 and 4.0


def test_attack_success_dropped_rows_and_skipped_rounds(tmp_path: Path) -> None:
    rows = of_an_attack()
    rows += [(number, "update", "7", "dropped", 1.0) for number in (1, 2, 5)]
    rows += [(2, "update", "3", "dropped", 1.0)]
    rows += [(number, "round", "all", "skipped", float(number in (2, 6))) for number in range(1, 9)]
    facts = adversary_facts(run_with(tmp_path, rows))
    # 0.1, 0.2, ... 0.8: the last five have the mean 0.6.
    assert facts == {
        "attack success": "0.8000 last, 0.6000 mean of last 5",
        "rows dropped as unusable": "4 (client 7: 3, client 3: 1)",
        "rounds that moved nothing": "2 (2, 6)",
    }


def test_what_a_detector_drops_without_a_flag_is_no_catch_and_is_told(tmp_path: Path) -> None:
    rows = [(2, "update", str(c), "malicious", float(c > 1)) for c in range(3)]
    rows += [(2, "update", str(c), "trust_unflagged", trust) for c, trust in ((0, 0.5), (2, 0.0))]
    facts = adversary_facts(run_with(tmp_path, rows, choices={"detector": "mine"}))
    rounds = len(run_with(tmp_path, rows).curve("round", "clients"))
    assert facts == {
        "updates the detector acted on without a flag": "2, 1 of them dropped: 1 of malicious "
        "clients, 1 of honest ones (neither caught nor false alarms)",
        "detector mine": f"no opinion of any update in {rounds} rounds",
    }


def test_clients_that_left_are_counted(tmp_path: Path) -> None:
    rows = [(1, "round", "all", "dropped_out", 3.0), (2, "round", "all", "dropped_out", 2.0)]
    run = run_with(tmp_path, rows)
    asked = int(run.curve("round", "clients").sum())
    said = f"5 of {asked} that took part ({500 / asked:.1f} %)"
    assert adversary_facts(run) == {"clients that left a round": said}


def test_a_run_in_which_nothing_happened_says_nothing_of_it(tmp_path: Path) -> None:
    rows = [(1, "round", "all", name, 0.0) for name in ("malicious", "dropped", "skipped")]
    run = run_with(tmp_path, rows, choices={"attack": "none"})
    assert adversary_facts(run) == {}
    report_run(run.path, plots=False)
    assert "Attack and defence" not in (run.path / "report.md").read_text()


def test_the_report_says_it_in_print_and_on_file(tmp_path: Path) -> None:
    run = run_with(tmp_path, of_an_attack() + of_a_detector())
    text = report_run(run.path)
    assert "Caught: 2 of 4 malicious updates (50.0 %)" in text
    assert "Attack success: 0.8000 last, 0.6000 mean of last 5" in text
    document = (run.path / "report.md").read_text()
    assert "- false alarms: 2 of 6 honest updates (33.3 %)" in document
    assert "plots/detector_roc.png" in document


def test_without_plots_there_is_a_report_and_no_picture(tmp_path: Path) -> None:
    run = run_with(tmp_path, of_an_attack())
    text = report_run(run.path, plots=False)
    assert "Plots:" not in text
    assert "attack success" in (run.path / "report.md").read_text()
    assert not (run.path / "plots").exists()


def test_without_plots_matplotlib_is_not_even_imported(tmp_path: Path) -> None:
    run = run_with(tmp_path, [])
    code = (
        "import sys; from fedexp.reporting.run_report import report_run; "
        f"report_run({str(run.path)!r}, plots=False); print('matplotlib' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False\n"


def test_report_draws_a_run_that_is_named_and_of_several_those_that_want_it(tmp_path: Path) -> None:
    for seed, plots in enumerate((True, False)):
        small = {"rounds": 2, "n_clients": 2, "class_names": ("no", "yes")}
        write_run(tmp_path / str(seed), seed=seed, config={"plots": plots}, **small)
    report([tmp_path])
    assert (tmp_path / "0" / "plots").is_dir()
    assert not (tmp_path / "1" / "plots").exists()
    report([tmp_path / "1"])
    assert (tmp_path / "1" / "plots").is_dir()


def test_rounds_with_more_attackers_than_assumed_are_counted(tmp_path: Path) -> None:
    more = [(r, "round", "all", "malicious", float(r % 4)) for r in range(1, 9)]
    counting = {"aggregator.assumed_malicious": 2}
    run = load_run(write_run(tmp_path / "a", rounds=8, config=counting, more=more))
    assert adversary_facts(run)["rounds with more attackers than the 2 assumed"] == "2 of 8"
    nobody = load_run(write_run(tmp_path / "b", rounds=8, more=more))
    assert not any("assumed" in fact for fact in adversary_facts(nobody))
