"""Rounds on the pretended device beside the CPU's, in a process of their own: prints JSON.

    python -m tests.support.rounds_there OVERRIDE ...

For every override how far the final models are apart, and what a GPU would be waited for; and for
trainers, what it would be waited for in one call of a backend.
"""

import json
import sys
from dataclasses import replace

import torch

from fedexp.backends.blocks import Blocks
from fedexp.backends.in_process import InProcess
from fedexp.config import build as builder
from fedexp.core.flat import vector_of
from fedexp.core.rng import torch_generator
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.privacy import private_blocks
from tests.parity.test_blocks import TRAINERS
from tests.support.composing import config_for
from tests.support.pretended_gpu import pretended_gpu, waits
from tests.support.workloads import start, tasks, workload

SMALL = (
    *("rounds=2", "n_clients=8", "train_examples=240", "partition=iid", "plots=false"),
    *("model=mlp", "model.hidden=[8]", "training.epochs=1", "training.batch_size=8"),
    *("backend=blocks", "backend.block_size=5"),
)


def final_model(device, *overrides):
    builder._device = lambda name: device
    built = builder.build(config_for(*SMALL, *overrides))
    state = initial_state(built.experiment, vector_of(built.model))
    for after, _ in run_rounds(built.experiment, state):
        state = after
    built.experiment.backend.close()
    return state.params


def in_one_call(device, backend, trainer):
    work = replace(workload(), device=device)
    trained = backend(work)
    given = [replace(t, params=t.params.to(device)) for t in tasks(start(work))]
    waits.clear()
    trained.train(trainer, given)
    return dict(waits)


def main(overrides):
    torch.set_num_threads(1)
    # Its own generator there is not pretended.
    private_blocks.torch_generator = lambda seed, device: torch_generator(seed)
    found = {}
    with pretended_gpu() as device:
        for name, trainer in TRAINERS.items():
            found[f"blocks, {name}"] = in_one_call(device, lambda w: Blocks(w, 3), trainer)
        found["in process"] = in_one_call(device, InProcess, TRAINERS["sgd"])
    for override in overrides:
        on_cpu = final_model(torch.device("cpu"), *override.split())
        with pretended_gpu() as device:
            there = final_model(device, *override.split())
            assert there.device == device
        found[override] = [float((there.raw - on_cpu).norm() / on_cpu.norm()), dict(waits)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
