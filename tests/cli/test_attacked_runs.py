"""Runs with an adversary, end to end: what they record, and that a resume loses none of it."""

import csv
import json
import shutil

import numpy as np
import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import assert_same_bits, rows_of, summary_of

SMALL = ("rounds=6", "training.epochs=1", "quiet=true", "plots=false", "partition=iid")
pytestmark = pytest.mark.usefixtures("without_pictures")


def run(folder, *overrides):
    assert run_command(["run", *SMALL, *overrides, f"hydra.run.dir={folder}"]) == 0
    return folder


def values(folder, scope, metric, client="all"):
    rows = rows_of(folder)
    return [v for _, s, c, m, v in rows if (s, c, m) == (scope, client, metric)]


def rolled_back(whole, folder, rounds):
    """A copy of a finished run as a kill in round `rounds` + 1 leaves it: the record is longer."""
    shutil.copytree(whole, folder)
    for path in (folder / "checkpoints").glob("round-*"):
        if int(path.stem.split("-")[1]) > rounds:
            path.unlink()
    summary = folder / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": "running"}))
    return folder


def files_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Everything that carries a state from round to round, and everything that draws.
STATEFUL = {
    "clipping around the last step, worker momentum, PCA": [
        "aggregator=centred_clipping",
        "worker_momentum=momentum",
        "detector=pca",
        "detector.warm_up_rounds=2",
        "record_updates=safetensors",
    ],
    "an autoencoder, fitted before the kill, and FoolsGold's history": [
        "aggregator=foolsgold",
        "detector=autoencoder",
        "detector.warm_up_rounds=3",
        "detector.scorer.epochs=20",
        "record_updates=pth",
    ],
    "FLAME's noise, buckets and the server's own client": [
        "aggregator=flame",
        "pre_aggregation=bucketing",
        "server_optimizer=adam",
    ],
    "root data": ["aggregator=fltrust"],
}


@pytest.mark.parametrize("what", STATEFUL)
def test_a_resume_loses_nothing_of_any_state(here, what):
    attack = ["attack=gaussian", "attack.n_malicious=2", "attack.first_round=4"]
    whole = run(here / "whole", *STATEFUL[what], *attack)
    killed = rolled_back(whole, here / "killed", rounds=5)
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole)
    assert files_below(killed / "updates") == files_below(whole / "updates")


def test_a_resume_in_the_middle_of_an_attacks_warm_up_copies_the_same_client(here):
    attack = ["attack=mimic", "attack.n_malicious=3", "attack.warmup=6", "checkpoint_every=1"]
    whole = run(here / "whole", *attack)
    killed = rolled_back(whole, here / "killed", rounds=5)
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole)


def test_a_resume_in_the_middle_of_a_warm_up_learns_the_same(here):
    detector = ["detector=norm", "detector.warm_up_rounds=5", "checkpoint_every=1"]
    whole = run(here / "whole", *detector)
    killed = rolled_back(whole, here / "killed", rounds=5)
    assert run_command(["resume", "killed"]) == 0
    assert_same_bits(killed, whole)


def test_the_workers_change_no_bit_of_an_attacked_run(here, quick_workers):
    parts = ["attack=optimal_alie", "attack.n_malicious=3", "aggregator=multi_krum"]
    one = run(here / "one", *parts, "backend=in_process", "rounds=3")
    two = run(here / "two", *parts, "backend=process_pool", "backend.workers=2", "rounds=3")
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()


def test_recorded_updates_are_what_the_server_received(here):
    from safetensors.numpy import load_file

    folder = run(
        here / "run", "record_updates=true", "attack=zero", "attack.n_malicious=2", "rounds=2"
    )
    attackers = summary_of(folder)["malicious_clients"]
    with open(folder / "updates" / "index.csv", newline="") as file:
        index = list(csv.DictReader(file))
    assert len(index) == 2 * 10 * 2  # rounds, clients, kinds
    assert {int(row["client"]) for row in index if row["malicious"] == "1"} == set(attackers)
    norms = {int(c): v for r, s, c, m, v in rows_of(folder) if (r, s, m) == (2, "update", "norm")}
    for client in range(10):
        tensors = load_file(folder / f"updates/round-000002/client-{client:05d}.safetensors")
        norm = np.sqrt(sum(float((t.astype("float64") ** 2).sum()) for t in tensors.values()))
        assert norm == pytest.approx(norms[client], rel=1e-5)
        assert (norm == 0) == (client in attackers)


def test_broken_clients_are_dropped_and_named_and_the_run_learns(here, capfd):
    folder = run(here / "run", "attack=broken", "attack.n_malicious=3", "rounds=4")
    assert values(folder, "round", "dropped") == [3, 3, 3, 3]
    assert summary_of(folder)["totals"]["dropped"] == 12
    assert values(folder, "test", "accuracy")[-1] > 0.7
    said = capfd.readouterr().err.splitlines()
    attackers = ", ".join(map(str, summary_of(folder)["malicious_clients"]))
    assert said == [f"round 1: dropped what client {attackers} sent: not finite"]  # once


def test_without_hygiene_they_ruin_the_mean(here):
    run(here / "run", "attack=broken", "attack.n_malicious=1", "update_validation=none", "rounds=2")
    assert values(here / "run", "test", "loss") == [None, None]  # NaN


def test_a_run_in_which_every_round_is_bad_ends_with_the_reason(here, capfd):
    arguments = ["attack=broken", "attack.n_malicious=10", "assumed_malicious=0"]
    command = ["run", *SMALL, *arguments, "max_failed_rounds=3", "hydra.run.dir=run"]
    assert run_command(command) == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-1].startswith(
        "fedexp: max_failed_rounds=3: the last 3 rounds moved nothing; the round moved nothing: "
        "it had 0 of the 1 updates needed"
    )
    assert summary_of(here / "run")["status"] == "failed"
    assert summary_of(here / "run")["rounds"] == 3


def test_a_detector_catches_clients_that_turn_and_drops_them(here):
    folder = run(
        here / "run",
        *["detector=norm", "detector.warm_up_rounds=4", "n_clients=20", "rounds=8"],
        *["attack=scaling", "attack.factor=50", "attack.n_malicious=4", "attack.first_round=5"],
    )
    assert values(folder, "round", "malicious") == [0] * 5 + [4] * 3
    assert values(folder, "round", "caught") == [0, 4, 4, 4]  # from round 5 on it has an opinion
    assert sum(values(folder, "round", "false_alarms")) <= 4
    assert values(folder, "test", "accuracy")[-1] > 0.75
    assert summary_of(folder)["totals"]["caught"] == 12


def test_a_backdoors_success_is_measured_beside_the_accuracy(here):
    folder = run(
        here / "run", "attack=backdoor", "attack.n_malicious=3", "attack.boost=4", "rounds=8"
    )
    assert values(folder, "attack", "success")[-1] > 0.8
    assert values(folder, "test", "accuracy")[-1] > 0.7
    assert summary_of(folder)["final"]["attack"]["success"] > 0.8


def test_so_is_a_triggers_success_without_an_attacker(here):
    folder = run(here / "run", "attack=backdoor", "attack.n_malicious=0", "rounds=1")
    assert 0 <= summary_of(folder)["final"]["attack"]["success"] < 0.5
