"""What models are measured on: validation, test, what an attack wants, clients' own patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedexp.config.adversary import wanted
from fedexp.core.protocols import Attack, Task
from fedexp.core.types import Dataset, Partition, Split
from fedexp.federation.evaluation import ModelEvaluator
from fedexp.federation.own_patients import OwnPatients


@dataclass(frozen=True)
class Evaluated:
    """What models are measured on, and how."""

    parts: Mapping[str, Split]  # by scope, all that is evaluated
    own: OwnPatients  # of the clients, in validation and test
    evaluator: ModelEvaluator


def evaluated(
    dataset: Dataset, partition: Partition, task: Task, attack: Attack, seed: int
) -> Evaluated:
    """Of the parts that are not trained on, those that have examples.

    Args:
        dataset: of the run.
        partition: over the clients, who have each a mix of classes and maybe patients of their own.
        task: what labels mean.
        attack: may want some examples of test answered its way.
        seed: of the run.
    """
    found = {"validation": dataset.validation, "test": dataset.test}
    parts = {name: part for name, part in found.items() if len(part)}
    mixes = _mixes(partition.label_counts(dataset.num_classes, task))
    own = OwnPatients(partition, dict(parts), mixes, seed)
    if (of_the_attack := wanted(attack, dataset.test)) is not None:
        parts["attack"] = of_the_attack
    evaluator = ModelEvaluator(task, dict(parts), mixes, own)
    if own.are_known:
        parts |= own.seen_otherwise()
    return Evaluated(parts, own, evaluator)


def _mixes(counts: np.ndarray) -> np.ndarray:
    """Each client's share of each class, from its counts; 0 where it has no label at all."""
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
