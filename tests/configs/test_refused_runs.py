"""Refused: numbers of clients and rounds, settings, devices and files that no run can have."""

import pytest
import torch

from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.refusing import refusal

REFUSED = {
    "alpha 0": (["partition.alpha=0"], "partition.alpha=0: must be a finite number above 0"),
    "server optimiser with state while alone": (
        ["setting=local_only", "server_optimizer=adam"],
        "server_optimizer=fedexp.aggregation.server_optimizers.Adam: there is no server where "
        "every client keeps a model of its own; use server_optimizer=sgd with lr=1",
    ),
    "cohort above the federation": (
        ["cohort_size=11"],
        "cohort_size=11: a cohort cannot be larger than the federation (n_clients=10)",
    ),
    "cohort above the federation, drawn at random": (
        ["cohort_size=11", "sampler=poisson"],
        "cohort_size=11: a cohort cannot be larger",
    ),
    "a cohort of absurd size under a sampler of its own": (
        ["cohort_size=1000000000000000", "sampler.cohort_size=10"],
        "cohort_size=1000000000000000: a cohort cannot be larger than the federation",
    ),
    "more groups than clients": (
        ["channel=secure_aggregation", "channel.groups=1000000000000000"],
        "channel.groups=1000000000000000: cannot make 1000000000000000 sums of 10 clients",
    ),
    "a whole number of 20 digits": (
        ["aggregator=multi_krum", "assumed_malicious=99999999999999999999"],
        "assumed_malicious=99999999999999999999: must be below 2**63",
    ),
    "cohort above the federation while centralised": (
        ["cohort_size=50", "setting=centralised"],
        "cohort_size=50: a cohort cannot be larger",
    ),
    "everybody and a smaller cohort": (
        ["sampler=full", "cohort_size=5"],
        "cohort_size=5: sampler=full takes all 10 clients; use sampler=uniform to draw some",
    ),
    "a round that nearly never happens": (
        ["min_clients=11"],
        "min_clients=11: would skip nearly every round: cohort_size is 10",
    ),
    "centralised in batches of everything, for a part of the clients": (
        ["setting=centralised", "cohort_size=2", "training.batch_size=null"],
        "training.batch_size=null: setting=centralised cannot do the work of a part",
    ),
    "local_only with a server that scales": (
        ["setting=local_only", "server_optimizer.lr=0.5"],
        "server_optimizer=fedexp.aggregation.server_optimizers.SGD: there is no server where every "
        "client keeps a model of its own; use server_optimizer=sgd with lr=1",
    ),
    "unknown objective": (
        ["objective=acuracy"],
        "objective=acuracy: did you mean accuracy? Allowed: accuracy,",
    ),
    "unknown device": (["device=gpu"], "device=gpu: did you mean cpu? Allowed: cpu, cuda, auto"),
    "more clients than samples": (["n_clients=2000"], "n_clients=2000: "),
    "zero clients": (["n_clients=0"], "n_clients=0: must be a whole number, 1 or above"),
    "zero rounds": (["rounds=0"], "rounds=0: must be a whole number, 1 or above"),
    "zero rounds between evaluations": (["eval_every=0"], "eval_every=0: must be a whole number"),
    "evaluations by cost and early stopping": (
        ["eval_every=auto", "early_stopping.patience=3"],
        "eval_every=auto: the round in which early stopping ends the run would depend",
    ),
    "zero rounds between checkpoints": (["checkpoint_every=0"], "checkpoint_every=0: must be a"),
    "negative seed": (["seed=-1"], "seed=-1: must be a whole number, 0 or above"),
    "updates of an unknown kind": (
        ["record_updates=zip"],
        "record_updates=zip: Allowed: false, true (both), safetensors, pth",
    ),
    "a number for what is true": (
        ["record_updates=1"],
        "record_updates=1: Allowed: false, true (both), safetensors, pth",
    ),
    "a run that may never fail": (["max_failed_rounds=0"], "max_failed_rounds=0: must be a"),
    "no worker": (["backend.workers=0"], "backend.workers=0: must be a whole number, 1 or above"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    overrides, message = REFUSED[case]
    said = refusal(config_for(*overrides))
    assert said.startswith(message), said


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refusal(config_for("device=cuda"))
    assert line == "device=cuda: no GPU that torch can use was found; use device=cpu"


def test_a_missing_file_is_refused_with_its_name(tmp_path, monkeypatch):
    import socket

    def no_network(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    line = refusal(config_for("dataset=breastmnist", f"paths.data_dir={tmp_path}"))
    assert str(tmp_path / "medmnist" / "breastmnist.npz") in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["setting=local_only", "server_optimizer=sgd"],
        ["sampler=full"],
        ["cohort_size=1"],
        ["device=auto"],
        ["seed=123456789012345678901"],
    ],
    ids=" ".join,
)
def test_accepts_what_is_close_to_a_refusal(overrides):
    build(config_for(*overrides)).experiment.backend.close()
