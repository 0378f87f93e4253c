"""The comparison with peers: everybody is given the same, and the table says what was measured."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedexp.aggregation.mean import Mean
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.data.arrays import Arrays
from fedexp.partition.file import FromFile

SCRIPTS = Path(__file__).parents[2] / "scripts"
SIZES = (20, 10, 30)


@pytest.fixture(scope="module", autouse=True)
def scripts_can_be_imported():
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def case(scripts_can_be_imported):
    from benchmarks.workloads import MLP_FLOPS, Case, two_nn

    cohort = np.arange(2)
    return Case("tiny 2NN", two_nn(), np.array(SIZES), cohort, 10, Mean("examples"), MLP_FLOPS)


@pytest.fixture(scope="module")
def workload(case, tmp_path_factory):
    from peers.workloads import write

    return write(case, tmp_path_factory.mktemp("peers") / "tiny")


@pytest.fixture(scope="module")
def ours(workload):
    """What `fedexp run` loads."""
    path = str(workload.folder / "data.npz")
    loader = Arrays("arrays", path, None, None, None, None, "auto", 0.1, 0.2, 0)
    return loader(workload.folder)


def test_everybody_trains_and_tests_on_the_same_numbers(workload, ours):
    scale = Normalisation.of(ours.train)
    for part, x, y in ((ours.train, "x", "y"), (ours.test, "x_test", "y_test")):
        given = scale(part)
        assert np.array_equal(given.x.numpy(), workload.array(x))
        assert np.array_equal(given.y.numpy(), workload.array(y))
    x = workload.array("x")
    assert len(x) == sum(SIZES)
    assert x.mean() == pytest.approx(0, abs=1e-4)
    assert x.std() == pytest.approx(1, abs=1e-4)


def test_everybody_has_the_same_clients(workload, ours):
    ends = np.cumsum(SIZES)
    held = FromFile(str(workload.folder / "shards.npz"))(ours.train, len(SIZES), None).shards
    for k, (rows, end, size) in enumerate(zip(held, ends, SIZES, strict=True)):
        assert np.array_equal(rows, np.arange(end - size, end))
        x, y = workload.client(k)
        assert np.array_equal(x, workload.array("x")[rows])
        assert np.array_equal(y, workload.array("y")[rows])


def test_everybody_starts_from_the_same_model(workload, case):
    from peers.torch_model import start_model

    assert torch.equal(vector_of(start_model(workload)), vector_of(case.model))
    tensors = load_file(workload.folder / "start.safetensors")
    for name, array in workload.start().items():
        assert np.array_equal(array, tensors[name].numpy())


def test_a_workload_says_what_it_is(workload):
    said = (workload.model, workload.batch_size, workload.per_round, workload.rule)
    assert said == ("mlp", 10, 2, "mean")
    assert not workload.private


@pytest.mark.slow
def test_fedexp_takes_part_as_users_start_it(workload):
    from peers.contestants import CONTESTANTS
    from peers.environments import Environments
    from peers.measure import run

    folder = Path(tempfile.mkdtemp())
    command = CONTESTANTS["fedexp-auto"].command(Environments(folder), workload, 3, folder)
    paths = os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS)])
    outcome = run(command, os.environ | {"PYTHONPATH": paths}, folder)
    assert outcome.failure is None
    assert len(outcome.rounds) == 3
    assert len(outcome.counted) == 2
    assert sum(outcome.rounds) < outcome.process
    assert 0 <= outcome.accuracy <= 1


def outcome(*rounds, process=9.0, accuracy=0.9, failure=None):
    from peers.measure import Outcome

    return Outcome(rounds, process, 100.0, accuracy, {}, failure)


def test_rounds_are_compared_with_the_fastest_peer_run_by_run():
    from peers.results import rows_of

    rows = rows_of(
        {
            "fedexp-auto": [outcome(50.0, 1.0, 1.0), outcome(50.0, 2.0, 2.0)],
            "plain-loop": [outcome(9.0, 0.1, 0.1), outcome(9.0, 0.1, 0.1)],  # of no library
            "slow": [outcome(9.0, 8.0, 8.0), outcome(9.0, 8.0, 8.0)],
            "fast": [outcome(9.0, 3.0, 3.0), outcome(9.0, 4.0, 4.0)],
        }
    )
    auto, _, slow, fast = rows
    assert auto["round_s"] == pytest.approx(1.5)  # the first round is not counted
    assert auto["beside_best_peer"] == pytest.approx(2.5)  # between 3 / 1 and 4 / 2
    assert auto["beside_best_peer_max"] == pytest.approx(3)
    assert slow["beside_best_peer"] == pytest.approx(7 / 16)
    assert fast["beside_best_peer"] == pytest.approx(1)


def test_the_table_names_who_failed_and_who_has_not_learnt():
    from peers.results import rows_of, table

    runs = {
        "lazy": [outcome(1.0, 0.5, accuracy=0.1)],
        "broken": [outcome(failure="exit 1: no such module")],
    }
    *_, lazy, broken = table(rows_of(runs)).splitlines()
    assert "0.10 (has not learnt)" in lazy
    assert "0.5 (0.5 to 0.5)" in lazy
    assert "failed: exit 1: no such module" in broken


def test_whoever_is_not_installed_is_named_with_the_command(tmp_path, capsys):
    from peers.compare import choice, installed
    from peers.environments import Environments

    chosen = choice(["W1", "pfl"])
    assert chosen == {"W1": ["fedexp-auto", "fedexp-pool", "pfl"]}
    assert installed(chosen, Environments(tmp_path)) == {"W1": ["fedexp-auto", "fedexp-pool"]}
    assert "scripts/peers/compare.py --setup pfl" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no /proc")
def test_memory_counts_what_a_process_has_started():
    from peers.measure import Memory, family

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(family(os.getpid()))
        with Memory(os.getpid(), every=0.01) as memory:
            while memory.peak is None:
                pass
        assert 1 < memory.peak < 100_000
    finally:
        child.communicate(b"\n")
