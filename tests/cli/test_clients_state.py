"""Runs whose clients keep something: recorded, resumed, on any number of workers."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedexp.commands.cli import run_command
from fedexp.detection.fitted import Fitted
from tests.support.commands import (
    FILES_OF_EQUAL_RUNS,
    assert_same_bits,
    kill,
    rows_of,
    start,
    start_to_kill,
    wait_for_round,
)

pytestmark = pytest.mark.usefixtures("without_pictures")
slow = pytest.mark.slow

SMALL = ("rounds=6", "training.epochs=2", "quiet=true", "cohort_size=4", "backend=in_process")
WHAT = {
    "scaffold": ("algorithm=scaffold",),
    "momentum": ("worker_momentum=momentum",),
    "compression": ("channel=top_k", "channel.share=0.05"),
    "both": (
        *("algorithm=scaffold", "worker_momentum=momentum", "worker_momentum.damped=false"),
        *("worker_momentum.start=zero", "privacy=dp_sgd", "checkpoint_every=2"),
        *("training.epochs=null", "training.steps=4"),
    ),
}


def run(folder, *overrides):
    assert run_command(["run", *SMALL, *overrides, f"hydra.run.dir={folder}"]) == 0
    return folder


def states(folder):
    """The files with what clients keep, by name."""
    return {path.name: path.read_bytes() for path in (folder / "client_state").iterdir()}


def assert_same_files(folder, reference):
    """The same bits; that they came about on different workers is in the summaries."""
    for name in (*FILES_OF_EQUAL_RUNS, "checkpoints/round-000006.pt", "checkpoints/best.pt"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert states(folder) == states(reference)


def needed(folder):
    """The names of the files that the checkpoints of a run say they need."""
    saved = [torch.load(p, weights_only=True) for p in (folder / "checkpoints").glob("*.pt")]
    return {f"round-{r:06d}.safetensors" for one in saved for r in one["client_state"]}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=slow if what != "both" else ()) for what in WHAT]
)
def test_pool_in_process_and_killed_and_resumed_are_the_same_bits(here, what):
    whole = run(here / "whole", *WHAT[what])
    assert states(whole).keys() == needed(whole)
    pool = run(here / "pool", *WHAT[what], "backend=process_pool", "backend.workers=2")
    assert_same_files(pool, whole)

    killed = here / "killed"
    process = start_to_kill("run", *SMALL, *WHAT[what], f"hydra.run.dir={killed}")
    wait_for_round(process, killed, 2)
    kill(process)
    assert run_command(["resume", str(killed)]) == 0
    assert_same_bits(killed, whole)
    assert states(killed) == states(whole)


@slow
def test_killed_in_a_pool_at_any_moment(here):
    whole = run(here / "whole", *WHAT["both"])
    killed = here / "killed"
    process = start(
        *("run", *SMALL, *WHAT["both"], "backend=process_pool", "backend.workers=2"),
        f"hydra.run.dir={killed}",
    )
    for round in (2, 4):
        wait_for_round(process, killed, round)
        kill(process)
        process = start("resume", str(killed))
    assert process.wait(60) == 0
    process.communicate()
    assert_same_files(killed, whole)


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_state_costs_a_round_and_no_bit(here, capfd, damage):
    whole = run(here / "whole", *WHAT["scaffold"])
    killed = shutil.copytree(whole, here / "killed")
    summary = json.loads((killed / "summary.json").read_text())
    (killed / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    newest = killed / "client_state" / "round-000006.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    if damage == "remove":
        newest.unlink()
    assert run_command(["resume", str(killed)]) == 0
    (warning,) = capfd.readouterr().err.splitlines()
    assert "round-000006.pt cannot be used: what clients keep cannot be read" in warning
    assert "going back further" in warning
    assert_same_bits(killed, whole)
    assert states(killed) == states(whole)


def test_what_a_killed_round_left_is_removed(here):
    whole = run(here / "whole", *WHAT["scaffold"])
    killed = shutil.copytree(whole, here / "killed")
    summary = json.loads((killed / "summary.json").read_text())
    (killed / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    (killed / "checkpoints" / "round-000006.pt").unlink()
    (killed / "client_state" / "round-000007.safetensors").write_bytes(b"from another life")
    (killed / "client_state" / ".0123456789abcdef.tmp").write_bytes(b"half")
    assert run_command(["resume", str(killed)]) == 0
    assert_same_bits(killed, whole)
    assert states(killed) == states(whole)


def test_a_run_in_which_nobody_keeps_anything_has_no_such_files(here):
    folder = run(here / "run", "rounds=2")
    assert not (folder / "client_state").exists()
    saved = torch.load(folder / "checkpoints" / "round-000002.pt", weights_only=True)
    assert saved["client_state"] == {}


def test_scaffold_costs_exactly_twice_the_bytes_and_records_its_second_tensor(here):
    folders = {
        a: run(here / a, f"algorithm={a}", "rounds=2", "record_updates=safetensors")
        for a in ("fedavg", "scaffold")
    }
    bytes_of = {
        a: [(r, m, v) for r, s, c, m, v in rows_of(folder) if m.startswith("bytes_")]
        for a, folder in folders.items()
    }
    assert next(v for _, _, v in bytes_of["fedavg"]) > 0
    assert bytes_of["scaffold"] == [(r, m, 2 * v) for r, m, v in bytes_of["fedavg"]]

    with open(folders["scaffold"] / "updates" / "index.csv", newline="") as file:
        index = list(csv.DictReader(file))
    plain = next((folders["fedavg"] / "updates").rglob("client-*.safetensors"))
    for row in index:
        tensors = load_file(folders["scaffold"] / "updates" / row["file"])
        delta = torch.cat([t.flatten() for n, t in tensors.items() if n != "control"])
        assert tensors.keys() == load_file(plain).keys() | {"control"}
        assert tensors["control"].shape == delta.shape
        norm = np.hypot(*(float(t.double().norm()) for t in (delta, tensors["control"])))
        assert float(row["norm"]) == pytest.approx(norm, rel=1e-6)


def test_a_detector_is_fitted_on_all_that_was_sent(here):
    folder = run(here / "run", "algorithm=scaffold", "rounds=3", "record_updates=safetensors")
    fit = ["detect", "fit", str(folder), "--out", "detector.safetensors", "--scorer", "pca"]
    assert run_command(fit) == 0
    update = load_file(next((folder / "updates").rglob("client-*.safetensors")))
    d = sum(tensor.numel() for tensor in update.values())
    assert Fitted.from_bytes((here / "detector.safetensors").read_bytes()).d == d


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ("setting=local_only",),
            "algorithm=fedexp.federation.algorithms.scaffold.Scaffold: needs",
        ),
        (("setting=centralised",), "needs setting=federated"),
        (("training.momentum=0.9",), "training=LocalSGD: algorithm=scaffold reads gradients"),
        (("training=adam",), "training=LocalOptimizer: algorithm=scaffold reads gradients"),
        (("training.momentum=0.9", "privacy=dp_sgd"), "training=PrivateTraining: algorithm=scaff"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_scaffold_is_refused_where_it_cannot_work(here, capfd, overrides, complaint):
    assert run_command(["run", "algorithm=scaffold", *overrides, "hydra.run.dir=run"]) == 2
    assert complaint in capfd.readouterr().err
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ("aggregator=krum", "assumed_malicious=1", "attack=sign_flip", "attack.n_malicious=1"),
        ("aggregator=fltrust", "detector=norm", "detector.warm_up_rounds=2"),
        ("channel=secure_aggregation", "server_optimizer=adam"),
        ("sampler=poisson", "cohort_size=2", "partition=classes"),
    ],
    ids=" ".join,
)
def test_scaffold_goes_with_everything_else(here, overrides):
    folder = run(here / "run", "algorithm=scaffold", *overrides, "cohort_size=7", "rounds=3")
    accuracy = [v for _, s, _, m, v in rows_of(folder) if (s, m) == ("test", "accuracy")]
    assert accuracy[-1] > 0.15
