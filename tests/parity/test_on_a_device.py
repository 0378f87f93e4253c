"""Whole rounds where tensors of two devices must not meet, and waiting for one is counted.

The device is pretended (`tests/support/pretended_gpu.py`): it finds what would fail or wait on a
GPU, and nothing about a GPU's own kernels.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.parity.test_blocks import TRAINERS

RUNS = [
    *("aggregator=median", "aggregator=krum", "aggregator=weighted_median", "aggregator=fltrust"),
    *("attack=alie", "attack=min_max", "pre_aggregation=nnm", "detector=pca"),
    *("privacy=client_dp", "privacy=local_gaussian", "worker_momentum=momentum"),
    *("setting=local_only", "server_optimizer=adam"),
]


@pytest.fixture(scope="module")
def found():
    """In a process of its own: torch has one place for a foreign device, and keeps it."""
    command = [sys.executable, "-m", "tests.support.rounds_there", *RUNS]
    root = Path(__file__).parents[2]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_a_round_in_blocks_waits_for_the_device_once(name, found):
    assert found[f"blocks, {name}"] == {"tolist": 1}


@pytest.mark.slow
def test_one_client_after_the_other_waits_no_more_for_four_clients_than_for_one(found):
    assert found["in process"]["tolist"] == 1
    assert sum(found["in process"].values()) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("override", RUNS)
def test_rounds_are_those_of_the_cpu(override, found):
    difference, waits = found[override]
    assert difference <= 1e-6
    # In two rounds: what is told of a round and of the evaluation, and nothing for each step.
    assert sum(waits.values()) < 60


@pytest.mark.slow
def test_what_is_pretended_refuses_what_a_gpu_refuses():
    code = """
import torch
from tests.support.pretended_gpu import pretended_gpu, waits
with pretended_gpu() as device:
    there = torch.ones(3, device=device)
    assert (there + 1).device == device
    try:
        there + torch.ones(3)
    except RuntimeError as error:
        print("refused:", error)
    float(there.sum())
    print(dict(waits))
"""
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert "tensors on two devices" in answer.stdout
    assert "_local_scalar_dense" in answer.stdout


def test_the_device_is_never_there_by_itself():
    assert torch._C._get_privateuse1_backend_name() == "privateuseone"
