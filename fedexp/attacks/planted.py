"""What all backdoors have in common: images with a trigger are to be answered with one class.

    x <- with_trigger(x),  y <- target      for a share of a malicious client's examples
    delta_k <- boost * delta_k              model replacement
    delta_k <- 0 at the coordinates S       S: the share s with the largest |mean of honest rows|

The other images keep their answers, so the accuracy does not show it; the answers to images with
the trigger do (see `targeted_examples`). A boost of n / m, n clients a round and m of them
malicious, moves a mean all the way to the malicious model (Bagdasaryan et al., "How To Backdoor
Federated Learning", AISTATS 2020, section 4); timed to a model that has converged by
`attack.first_round`, it replaces the model at one blow.

The last line is Neurotoxin (Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning",
ICML 2022, algorithm 1): what honest clients move most they will overwrite soonest, so a backdoor
lasts longer elsewhere. There the mask is the previous round's step, and the malicious gradient is
masked in every local step; here it is the mean of the honest rows of the round itself, which that
step stands for, and the finished row is masked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import with_malicious_rows
from fedexp.attacks.honest import known_rows
from fedexp.attacks.labels import drawn_rows, refuse_several_labels
from fedexp.core.checks import InputError, at_least, in_range, positive
from fedexp.core.examples import Split
from fedexp.core.types import Rule, Updates


@dataclass(frozen=True, kw_only=True)
class PlantedTrigger(ABC):
    """Mark and relabel a share of the malicious clients' images; boost and mask their rows.

    Args:
        target_label: the answer to images with the trigger, 0..num_classes-1.
        poisoned_fraction: share of a client's examples that get it, to the nearest example.
        boost: factor on a malicious row; 1 leaves it.
        mask_share: s, the share of the coordinates that a malicious row leaves alone; 0: none.
        num_classes: C, at least 2.

    Raises:
        InputError: when poisoning or probing, if the trigger does not fit into the images, if the
            examples are none, or have several labels.
    """

    targets_by_example: ClassVar[bool] = True

    target_label: int
    poisoned_fraction: float
    boost: float
    mask_share: float = 0.0  # as in runs of the time before there was such a key
    num_classes: int

    def __post_init__(self) -> None:
        at_least(2, num_classes=self.num_classes)
        at_least(0, target_label=self.target_label)
        in_range(0, self.num_classes - 1, target_label=self.target_label)
        in_range(0, 1, poisoned_fraction=self.poisoned_fraction)
        positive(boost=self.boost)
        if not 0 <= self.mask_share < 1:
            raise InputError("must be at least 0 and below 1", "mask_share", self.mask_share)

    @property
    def sees_other_clients(self) -> bool:
        """Where they move most, for the mask."""
        return self.mask_share > 0

    @abstractmethod
    def with_trigger(self, x: Tensor) -> Tensor:
        """Copies of images `[n, channels, height, width]`, 0 to 1, with the whole trigger."""

    def with_own_trigger(self, x: Tensor) -> Tensor:
        """As a malicious client marks its images: with the whole trigger, unless it is divided."""
        return self.with_trigger(x)

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The data with some images marked and relabelled, whatever their class was."""
        refuse_several_labels(data, "backdoor")
        chosen = drawn_rows(len(data), self.poisoned_fraction, rng)
        x, y = data.x.clone(), data.y.clone()
        x[chosen] = self.with_own_trigger(x[chosen])
        y[chosen] = self.target_label
        return data.with_x(x).with_y(y)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows boosted and masked."""
        if self.boost == 1 and self.mask_share == 0:
            return updates
        rows = self.boost * updates.matrix[malicious]
        if masked := round(self.mask_share * rows.shape[1]):
            moves = known_rows(updates, malicious).mean(dim=0).abs()
            rows[:, moves.topk(masked).indices] = 0
        return with_malicious_rows(updates, malicious, rows)

    def targeted_examples(self, data: Split) -> Split:
        """All images of other classes than the target, marked, with the target as the answer."""
        others = data.rows(data.y != self.target_label)
        wanted = torch.full_like(others.y, self.target_label)
        return others.with_x(self.with_trigger(others.x)).with_y(wanted)


def refuse_what_are_no_images(x: Tensor, key: str, value: object) -> None:
    """Raise InputError unless `x` is `[n, channels, height, width]`."""
    if x.dim() != 4:
        raise InputError(
            f"stamps images [channels, height, width], and these examples are "
            f"{list(x.shape[1:])}; use an attack on labels or on updates",
            key,
            value,
        )
