"""Local training by hand, by autograd and in bfloat16, in turn; CPU seconds of a client's round.

    cd scripts && python -m benchmarks.steps [TURNS]

For a machine that others use too: CPU seconds say less of them than a clock does. Ratios are
medians over the turns, of runs that stood side by side.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial

import torch
from torch import nn

from benchmarks.workloads import CLASSES, SHAPE, two_nn
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel, vector_of
from fedexp.core.types import ClientTask
from fedexp.models import cnn, mlp, small_cnn
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD
from fedexp.training.steps import Step, ordinary_steps


def by_autograd(*arguments: object) -> Generator[Step, None, None]:
    """Ordinary steps under another name, which nobody makes by hand."""
    yield from ordinary_steps(*arguments)  # type: ignore[arg-type]


def rounds_of(
    module: nn.Module, n: int, batch_size: int, steps: int | None
) -> Mapping[str, Callable[[], object]]:
    """One client's round in every way that there is; the first is what others are compared to."""
    g = torch.Generator().manual_seed(0)
    data = Split(torch.randn(n, *SHAPE, generator=g), torch.randint(0, CLASSES, (n,), generator=g))
    start = vector_of(module)
    model = TaskModel(module, torch.device("cpu"), Multiclass())
    task = ClientTask(0, start, 0, 1)

    def trainer(precision: str) -> LocalSGD:
        epochs = None if steps else 1
        return LocalSGD(
            *(0.01, batch_size, epochs, steps, 0.0, 0.0, 0.0, Constant()), precision=precision
        )

    def run(train: Callable[..., object]) -> None:
        model.load(start)
        train(model, data, task)

    return {
        "autograd": partial(run, partial(trainer("float32"), steps=by_autograd)),
        "as it runs": partial(run, trainer("float32")),
        "bfloat16": partial(run, trainer("bfloat16")),
    }


def main(turns: int) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    cases = {
        "2NN, 60 examples, batches of 10": (two_nn(), 60, 10, None),
        "2NN, 600 examples, batches of 32": (two_nn(), 600, 32, None),
        "2NN, 600 examples, one batch of 32": (two_nn(), 600, 32, 1),
        "32 hidden units, 120 examples, batches of 10": (mlp(SHAPE, CLASSES, (32,)), 120, 10, None),
        "small CNN, 300 examples, batches of 32": (small_cnn(SHAPE, CLASSES), 300, 32, None),
        "CNN, 60 examples, batches of 10": (cnn(SHAPE, CLASSES), 60, 10, None),
    }
    print("| a client's round | way | ms of CPU | times autograd | range |\n|---|---|---|---|---|")
    for name, case in cases.items():
        ways = rounds_of(*case)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(turns + 1):
            for way, run in ways.items():
                started = time.process_time()
                run()
                seconds[way].append(time.process_time() - started)
        first = seconds["autograd"][1:]
        for way, taken in seconds.items():
            ratios = [a / b for a, b in zip(first, taken[1:], strict=True)]
            cells = (
                f"{statistics.median(taken[1:]) * 1e3:.3g}",
                f"{statistics.median(ratios):.2f}",
            )
            print(
                f"| {name} | {way} | {' | '.join(cells)} | {min(ratios):.2f} to {max(ratios):.2f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
