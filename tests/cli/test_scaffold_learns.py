"""SCAFFOLD against FedAvg where every client has two of ten classes."""

import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import rows_of

pytestmark = [pytest.mark.usefixtures("without_pictures"), pytest.mark.slow]

SKEWED = ("partition=classes", "rounds=15", "training.epochs=3", "eval_every=15", "quiet=true")


def accuracy_of(folder, *overrides):
    assert run_command(["run", *SKEWED, *overrides, f"hydra.run.dir={folder}"]) == 0
    (value,) = [v for _, s, _, m, v in rows_of(folder) if (s, m) == ("test", "accuracy")]
    return value


def test_it_is_better_at_equal_rounds(here):
    pairs = [
        [
            accuracy_of(here / f"{algorithm}{seed}", f"algorithm={algorithm}", f"seed={seed}")
            for algorithm in ("fedavg", "scaffold")
        ]
        for seed in range(5)
    ]
    better = sum(scaffold > fedavg for fedavg, scaffold in pairs)
    assert better >= 4, f"accuracy of FedAvg and SCAFFOLD by seed: {pairs}"
