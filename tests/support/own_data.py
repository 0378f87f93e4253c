"""Collections and partitions that somebody else wrote: ordinary classes, not one of ours."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fedexp.config.build import build
from fedexp.core.examples import Dataset, Split
from fedexp.core.flat import vector_of
from fedexp.core.partition import Partition
from fedexp.federation.rounds import initial_state, run_rounds
from tests.support.composing import config_for

MODULE = "tests.support.own_data"


@dataclass
class Table:
    """Breast cancer, 569 rows of 30 numbers, as scikit-learn ships it; not hashable."""

    name: str
    input_shape: list[int]
    num_classes: int
    remarks: list[str] = field(default_factory=list)

    def __call__(self, data_dir):
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        x = torch.from_numpy(bunch.data[order].astype(np.float32))
        whole = Split(x, torch.from_numpy(bunch.target[order]), site=torch.arange(len(x)) % 4)
        parts = whole.between(0, 369), whole.between(369, 469), whole.between(469, 569)
        return Dataset(self.name, *parts, tuple(map(str, bunch.target_names)))

    def files(self, data_dir):
        return ()


@dataclass
class Findings:
    """Rows of 12 numbers with any of 3 labels: a label where its linear score is above 0."""

    name: str
    input_shape: list[int]
    num_classes: int
    n: int = 240

    def __call__(self, data_dir):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(self.n, 12, generator=g)
        y = (x @ torch.randn(12, 3, generator=g) > 0).to(torch.uint8)
        whole = Split(x, y, subject=torch.arange(self.n) // 2)
        third = self.n // 3
        parts = [whole.between(k * third, (k + 1) * third) for k in range(3)]
        return Dataset(self.name, *parts, ("nodule", "effusion", "fracture"))

    def files(self, data_dir):
        return ()


@dataclass
class MappedImages:
    """60 grey 4x4 images of 3 classes in a file of bytes, which is mapped and never read whole."""

    name: str
    input_shape: list[int]
    num_classes: int
    file: str
    how: str  # "torch" or "numpy"; "memory" reads the file

    def __call__(self, data_dir):
        shape = (60, 1, 4, 4)
        if self.how == "torch":
            flat = torch.from_file(self.file, shared=False, size=60 * 16, dtype=torch.uint8)
            x = flat.view(shape)
        elif self.how == "numpy":
            x = torch.from_numpy(np.memmap(self.file, np.uint8, mode="c", shape=shape))
        else:
            x = torch.from_numpy(np.fromfile(self.file, np.uint8).reshape(shape))
        whole = Split(x, torch.arange(60) % 3, divisor=255)
        parts = whole.between(0, 40), whole.between(40, 50), whole.between(50, 60)
        return Dataset(self.name, *parts, ("a", "b", "c"))

    def files(self, data_dir):
        return ()


@dataclass
class Given:
    """Whatever it was told to return; its class may carry what no config can."""

    name: str
    dataset: object
    input_shape: tuple[int, ...] = (2,)
    num_classes: int = 2

    def __call__(self, data_dir):
        return self.dataset


@dataclass
class Wrong:
    """A partition with a fault of a kind."""

    fault: str

    def __call__(self, train, n_clients, rng):
        shards = np.array_split(np.arange(len(train)), n_clients)
        if self.fault == "overlap":
            shards[1] = np.append(shards[1], shards[0][3])
        elif self.fault == "unsorted":
            shards = [shard[::-1] for shard in shards]
        elif self.fault == "relabels":
            train.y.add_(0)  # that much harms no other test
        return Partition(train, tuple(shards))


TABLE = {"_target_": f"{MODULE}.Table", "name": "table", "input_shape": [30], "num_classes": 2}
FINDINGS = {"_target_": f"{MODULE}.Findings", "name": "findings"}
FINDINGS |= {"input_shape": [12], "num_classes": 3}


def mapped(file, how):
    node = {"_target_": f"{MODULE}.MappedImages", "name": "mapped", "file": str(file), "how": how}
    return {**node, "input_shape": [1, 4, 4], "num_classes": 3}


def own_config(dataset, *overrides):
    """The config of `fedexp run overrides` on a dataset of one's own."""
    config = config_for("n_clients=4", "partition=iid", "rounds=2", *overrides)
    config |= {"dataset": dataset, "trust": ["tests."]}
    for group in (config["model"], config["attack"]):
        shared = {"input_shape", "num_classes"} & set(group)
        group |= {key: dataset[key] for key in shared}
    return config


def trained(config):
    """The last state of a run of `config`, its records, and what it was built of."""
    built = build(config)
    state, records = initial_state(built.experiment, vector_of(built.model)), []
    try:
        for after, record in run_rounds(built.experiment, state):
            state = after
            records.append(record)
    finally:
        built.experiment.backend.close()
    return state, records, built


def value_of(record, scope, metric, client="all"):
    """One number of a round's record."""
    (value,) = [
        row.value
        for row in record.metrics
        if (row.scope, row.client, row.metric) == (scope, client, metric)
    ]
    return value


NOWHERE = Path("/nowhere")
