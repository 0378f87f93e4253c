"""Defences against attacks, over a sweep: means, costs and worst cases."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from fedexp.reporting.figures import save
from fedexp.reporting.finding import find_runs
from fedexp.reporting.heatmaps import attack_matrix_figure
from fedexp.reporting.results import load_run
from fedexp.reporting.robustness import matrices, robustness_markdown, robustness_table
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import markdown, run_table
from tests.support.attacked_runs import ACCURACY, of_a_detector, rows_of, table_of, write_sweep
from tests.support.pictures import cells, drawn
from tests.support.run_folders import write_config, write_failed, write_run
from tests.support.sweep_folders import load


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path, ACCURACY)


def test_means_costs_losses_and_worst_cases_by_hand(sweep: Path) -> None:
    rows = rows_of(sweep)
    assert list(rows.index) == [
        (defence, attack)
        for defence in ("mean", "krum")
        for attack in ("none", "alie", "sign_flip", "worst case")
    ]
    krum = rows.loc["krum"]
    assert list(krum["test_accuracy_mean"]) == pytest.approx([0.92, 0.71, 0.90, 0.71])
    assert krum.loc["none", "test_accuracy_sd"] == pytest.approx(math.sqrt(0.0008))
    assert krum.loc["none", "cost_without_attacker"] == pytest.approx(0.97 - 0.92)
    assert list(krum["accuracy_lost"])[1:] == pytest.approx([0.21, 0.02, 0.21])
    assert list(krum["n"]) == [2, 2, 2, 2]
    mean = rows.loc["mean"]
    assert mean.loc["worst case", "test_accuracy_mean"] == pytest.approx(0.55)
    assert mean.loc["none", "cost_without_attacker"] == 0
    assert math.isnan(mean.loc["none", "accuracy_lost"])


@pytest.mark.usefixtures("real_pictures")
def test_the_sweeps_files_and_what_is_printed(sweep: Path) -> None:
    text = report_sweep([sweep], sweep)
    assert "| worst case               | 0.550  | 0.710  |" in text
    assert "| cost without an attacker | 0.000  | 0.050  |" in text
    page = (sweep / "table.md").read_text()
    assert "worst case" in page
    assert "0.920 ± 0.028" in page
    assert "](attack_matrix.png)" in page
    assert "](comparison.png)" in page
    assert drawn(sweep / "attack_matrix.png")
    table = pd.read_csv(sweep / "robustness.csv", keep_default_na=False)
    assert list(table["attack"]) == ["none", "alie", "sign_flip", "worst case"] * 2


def test_a_sweep_in_which_the_attack_does_not_vary_has_no_matrix(tmp_path: Path) -> None:
    write_sweep(tmp_path, {key: v for key, v in ACCURACY.items() if key[1] == "alie"})
    (tmp_path / "attack_matrix.png").write_bytes(b"of an earlier report")
    (tmp_path / ".report.json").write_text('{"files": ["attack_matrix.png"]}')
    assert robustness_table(load(tmp_path)) is None
    report_sweep([tmp_path], tmp_path)
    made = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert made - {".report.json"} == {
        *("table.csv", "summary.csv", "table.md", "report.html", "comparison.png")
    }


@pytest.mark.usefixtures("real_pictures")
def test_jobs_that_failed_are_a_dash_and_make_the_worst_case_a_bound(sweep: Path) -> None:
    for seed in (0, 1):
        folder = sweep / f"aggregator=krum,attack=sign_flip,seed={seed}"
        write_failed(folder, "needs n >= 2f + 3")
    for attack in ("none", "alie", "sign_flip"):
        folder = sweep / f"aggregator=bulyan,attack={attack},seed=0"
        chosen = {"aggregator": "bulyan", "attack": attack}
        write_config(folder, rounds=2, n_clients=2, choices=chosen)
        write_failed(folder, "needs n >= 4f + 3")
    runs = load(sweep)
    table = robustness_table(runs)
    assert table is not None
    text = robustness_markdown(runs, table)
    by_attack = {
        line.split("|")[1].strip(): line.split("|")[2:-1]
        for line in text.splitlines()
        if "|" in line
    }
    assert [cell.strip() for cell in by_attack["sign_flip"]] == ["0.550", "-", "-"]
    assert [cell.strip() for cell in by_attack["worst case"]] == ["0.550", "-", "≤ 0.710"]
    assert "Jobs left out: 5 failed. -: no complete run (4 of 9 cells)." in text
    figure = attack_matrix_figure(table)
    shown = cells(figure)
    assert shown[6:9] == ["0.550\n±0.071", "-", "-"]
    assert shown[9:] == ["0.550", "-", "≤0.710"]
    assert "Jobs left out: 5 failed" in figure.texts[1].get_text().replace("\n", " ")
    assert drawn(save(figure, sweep / "m.png"))


@pytest.mark.usefixtures("real_pictures")
def test_a_sweep_of_nothing_but_failures_is_drawn(tmp_path: Path) -> None:
    for attack in ("none", "alie"):
        folder = tmp_path / attack
        write_config(folder, choices={"attack": attack})
        write_failed(folder, "killed")
    write_failed(tmp_path / "lost", "no space left on device")
    text = report_sweep([tmp_path], tmp_path)
    assert "-: no complete run (2 of 2 cells)." in text
    assert (tmp_path / "attack_matrix.png").exists()


def test_runs_in_which_nobody_is_malicious_stand_under_none(tmp_path: Path) -> None:
    for n_malicious in (0, 2, 4):
        write_run(
            tmp_path / str(n_malicious),
            rounds=1,
            choices={"attack": "sign_flip"},
            config={"attack.n_malicious": n_malicious},
        )
    attacks = list(rows_of(tmp_path).loc["mean"].index)
    assert attacks == ["none", "sign_flip, n_malicious=2", "sign_flip, n_malicious=4", "worst case"]


def test_a_defence_is_named_by_all_that_belongs_to_it(tmp_path: Path) -> None:
    defences: dict[str, tuple[dict, dict]] = {
        "mean": ({}, {}),
        "trimmed_mean + nnm": ({"aggregator": "trimmed_mean", "pre_aggregation": "nnm"}, {}),
        "median + clipping + nnm": (
            {"aggregator": "median", "pre_aggregation": ["clipping", "nnm"]},
            {},
        ),
        "mean + autoencoder": ({"detector": "autoencoder"}, {}),
        "krum, f=1": ({"aggregator": "krum"}, {"aggregator.f": 1}),
        "krum, f=2": ({"aggregator": "krum"}, {"aggregator.f": 2}),
    }
    for number, (choices, config) in enumerate(defences.values()):
        for attack in ("none", "alie"):
            chosen = {"pre_aggregation": "none", "detector": "none", "attack": attack, **choices}
            write_run(tmp_path / f"{number}{attack}", rounds=1, choices=chosen, config=config)
    table = table_of(tmp_path)
    assert set(table["defence"]) == set(defences)
    assert list(table["defence"].unique())[:2] == ["mean", "mean + autoencoder"]
    assert table["panel"].unique().tolist() == [""]


@pytest.mark.usefixtures("real_pictures")
def test_what_is_no_defence_makes_panels_and_worker_momentum_is_one(tmp_path: Path) -> None:
    accuracy = iter(range(1, 100))
    for partition in ("iid", "dirichlet"):
        for momentum in (0.0, 0.9):
            for aggregator in ("mean", "median"):
                for attack in ("none", "alie"):
                    write_run(
                        tmp_path / f"{partition}{momentum}{aggregator}{attack}",
                        rounds=1,
                        choices={
                            "partition": partition,
                            "aggregator": aggregator,
                            "attack": attack,
                        },
                        config={"training.worker_momentum": momentum},
                        final={"accuracy": next(accuracy) / 100},
                    )
    table = table_of(tmp_path)
    assert set(table["panel"]) == {"partition=iid", "partition=dirichlet"}
    assert "median, worker_momentum=0.9" in set(table["defence"])
    rows = table.set_index(["panel", "defence", "attack"])
    # The mean trained in the same way: 0.05 against 0.07, not 0.01.
    cost = rows["cost_without_attacker"]["partition=iid", "median, worker_momentum=0.9", "none"]
    assert cost == pytest.approx(-0.02)
    figure = attack_matrix_figure(table)
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    assert {"partition=iid", "partition=dirichlet"} <= titles
    assert drawn(save(figure, tmp_path / "m.png"))


def test_settings_with_one_defence_each_stand_side_by_side(tmp_path: Path) -> None:
    for privacy, detector, accuracy in (("none", "none", 0.9), ("dp_sgd", "norm", 0.6)):
        for attack, lost in (("none", 0.0), ("alie", 0.3)):
            write_run(
                tmp_path / f"{privacy}{attack}",
                rounds=1,
                choices={"privacy": privacy, "detector": detector, "attack": attack},
                final={"accuracy": accuracy - lost},
            )
    table = table_of(tmp_path)
    assert set(table["panel"]) == {"privacy=none", "privacy=dp_sgd"}  # in robustness.csv
    shown = robustness_markdown([], table)
    assert "| attack     | privacy=dp_sgd (mean + norm)   | privacy=none (mean)   |" in shown
    assert "| worst case | 0.300                          | 0.600                 |" in shown
    assert "###" not in shown
    # Each is the only one of its settings: there is nothing that it costs more than.
    assert "cost without an attacker" not in shown
    assert cells(attack_matrix_figure(table))[:2] == ["0.900", "0.600"]  # best worst case first


def test_a_triggers_success_without_an_attacker_stands_beside_it(tmp_path: Path) -> None:
    for n_malicious, success in ((0, 0.04), (4, 0.99)):
        write_run(
            tmp_path / str(n_malicious),
            rounds=1,
            choices={"attack": "backdoor"},
            config={"attack.n_malicious": n_malicious},
            more=[(1, "attack", "all", "success", success)],
        )
    success = rows_of(tmp_path).loc["mean"]["attack_success_mean"]
    assert success.dropna().to_dict() == pytest.approx(
        {"none": 0.04, "backdoor, n_malicious=4": 0.99}
    )


@pytest.mark.parametrize("recorded", [True, False], ids=["in the summary", "in the metrics only"])
def test_attack_success_is_shown_where_it_was_measured(tmp_path: Path, recorded: bool) -> None:
    for attack in ("none", "backdoor", "alie"):
        for seed in (0, 1):
            success = [(2, "attack", "all", "success", 0.5 + 0.2 * seed)]
            folder = write_run(
                tmp_path / f"{attack}{seed}",
                seed=seed,
                rounds=2,
                choices={"attack": attack},
                more=success if attack == "backdoor" else [],
            )
            if recorded and attack == "backdoor":
                summary = json.loads((folder / "summary.json").read_text())
                summary["final"]["attack"] = {"success": success[0][4]}
                (folder / "summary.json").write_text(json.dumps(summary))
                (folder / "metrics.csv").unlink()
                (folder / "metrics.jsonl").unlink()
    rows = rows_of(tmp_path).loc["mean"]
    assert rows.loc["backdoor", "attack_success_mean"] == pytest.approx(0.6)
    assert rows.loc["backdoor", "attack_success_sd"] == pytest.approx(math.sqrt(0.02))
    assert rows["attack_success_mean"].notna().sum() == 1
    runs = load(tmp_path)
    assert "0.600 ± 0.141" in markdown(runs)
    table = table_of(tmp_path)
    assert "Attack success" in robustness_markdown(runs, table)
    shown = cells(attack_matrix_figure(table))
    assert [cell for cell in shown if "(60%)" in cell] == [shown[2]]


def test_a_cost_that_was_not_measured_on_guard_is_said(sweep: Path) -> None:
    said = "Without an attacker the defences assumed that nobody is malicious"
    assert said not in report_sweep([sweep])
    for path in find_runs([sweep]):
        number = 0 if "none" in path.name else 2
        config = path / "config.yaml"
        config.write_text(config.read_text() + f"assumed_malicious: {number}\noverrides: []\n")
    assert said in report_sweep([sweep])


def test_matrices_have_the_worst_case_last(sweep: Path) -> None:
    (matrix,) = matrices(table_of(sweep), "test_accuracy_mean").values()
    assert list(matrix.index) == ["none", "alie", "sign_flip", "worst case"]
    assert list(matrix.columns) == ["mean", "krum"]
    assert matrix.loc["worst case", "krum"] == pytest.approx(0.71)


def test_a_sweep_says_what_each_detector_caught(tmp_path: Path) -> None:
    write_run(tmp_path / "norm", choices={"detector": "norm"}, more=of_a_detector((1, 2)))
    write_run(tmp_path / "none", choices={"detector": "none"}, more=of_a_detector((1, 2)))
    table = run_table([load_run(tmp_path / name) for name in ("norm", "none")])
    rates = table.set_index("detector")[["detector_auc", "caught", "false_alarms"]]
    assert rates.loc["norm"].tolist() == pytest.approx([5 / 6, 1 / 2, 1 / 3])
    assert rates.loc["none"].isna().all()


def test_of_several_strengths_the_one_that_hurts_a_defence_most_counts(tmp_path: Path) -> None:
    """Variants of one class, by a choice of their own and by a key; each rule has its worst."""
    accuracy = {
        ("mean", "none", 0.0): 0.95,
        ("mean", "ipm", 0.1): 0.90,
        ("mean", "ipm_strong", 5.0): 0.10,
        ("krum", "none", 0.0): 0.93,
        ("krum", "ipm", 0.1): 0.40,
        ("krum", "ipm_strong", 5.0): 0.92,
    }
    for (rule, attack, epsilon), value in accuracy.items():
        target = {"attack._target_": "lies.Ipm", "attack.epsilon": epsilon}
        write_run(
            tmp_path / f"{rule}-{attack}",
            rounds=1,
            choices={"aggregator": rule, "attack": attack},
            config=target if attack != "none" else {},
            final={"accuracy": value},
        )
    rows = rows_of(tmp_path)
    assert list(rows.loc["mean"].index) == ["none", "ipm", "worst case"]
    assert rows.loc[("mean", "ipm"), "test_accuracy_mean"] == pytest.approx(0.10)
    assert rows.loc[("krum", "ipm"), "test_accuracy_mean"] == pytest.approx(0.40)
    assert rows.loc[("mean", "ipm"), "strength"] == "ipm_strong"
    assert rows.loc[("krum", "ipm"), "strength"] == "ipm"


def test_an_attack_with_a_name_of_its_own_stands_by_itself(tmp_path: Path) -> None:
    """Neurotoxin is the backdoor's class with a mask, and no strength of it."""
    for attack, value in {"none": 0.9, "backdoor": 0.8, "neurotoxin": 0.7}.items():
        target = {"attack._target_": "lies.Backdoor", "attack.n_malicious": 1}
        write_run(
            tmp_path / attack,
            rounds=1,
            choices={"aggregator": "mean", "attack": attack},
            config=target if attack != "none" else {},
            final={"accuracy": value},
        )
    of_mean = rows_of(tmp_path).loc["mean"]
    assert list(of_mean.index) == ["none", "backdoor", "neurotoxin", "worst case"]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("last_round", (3, 5)),
        ("schedule.share_of_rounds", (0.5, 1.0)),
        ("schedule.clients_a_round", (1, 2)),
        ("extra_clients", (False, True)),
    ],
)
def test_who_attacks_and_when_is_no_strength(
    tmp_path: Path, key: str, values: tuple[object, ...]
) -> None:
    """An attack of three rounds is not that of five rounds at another strength."""
    write_run(tmp_path / "none", rounds=1, choices={"aggregator": "mean", "attack": "none"})
    group, _, name = key.rpartition(".")
    for value in values:
        write_run(
            tmp_path / str(value),
            rounds=1,
            choices={"aggregator": "mean", "attack": "ipm"},
            config={
                "attack.n_malicious": 1,
                f"attack.{group or name}": {name: value} if group else value,
            },
        )
    told = [f"ipm, {name}={value}" for value in values]
    assert list(rows_of(tmp_path).loc["mean"].index) == ["none", *told, "worst case"]


@pytest.mark.usefixtures("real_pictures")
def test_a_perfect_defence_stands_beside_every_attack(tmp_path: Path) -> None:
    """A mean without what the attackers sent, found by what happened and not by a name."""
    lying = [(1, "update", "3", "malicious", 1.0), (1, "update", "4", "malicious", 0.0)]
    dropped = (1, "update", "3", "dropped", 1.0)
    too_many = (1, "update", "4", "dropped", 1.0)
    cases = {
        ("mean", "none"): (0.95, []),
        ("mean", "nan"): (0.91, [*lying, dropped]),
        ("mean", "alie"): (0.30, lying),
        ("mean", "noise"): (0.99, [*lying, dropped, too_many]),
        ("krum", "none"): (0.90, []),
        ("krum", "nan"): (0.89, [*lying, dropped]),
        ("krum", "alie"): (0.80, lying),
        ("krum", "noise"): (0.85, lying),
    }
    for (rule, attack), (accuracy, more) in cases.items():
        chosen = {"aggregator": rule, "attack": attack}
        final = {"accuracy": accuracy}
        folder = tmp_path / f"{rule}{attack}"
        write_run(folder, rounds=1, choices=chosen, final=final, more=more)
    rows = rows_of(tmp_path).loc["perfect defence"]["test_accuracy_mean"]
    assert rows.to_dict() == pytest.approx(
        {"none": 0.95, "nan": 0.91, "alie": 0.91, "noise": 0.91, "worst case": 0.91}
    )
    assert "perfect defence" in report_sweep([tmp_path], tmp_path)
    assert drawn(tmp_path / "attack_matrix.png")
