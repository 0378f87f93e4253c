"""Edge-case backdoor: unusual images of one class are to be answered with another; no trigger.

    tail: the share p of the images of the source class with the lowest density
    log density(x) = - sum_j ((x_j - m_j)^2 / (2 s_j^2) + log s_j)

with m and s the mean and standard deviation of the class's pixels, a floor under s for pixels that
never change. Inputs that honest clients hardly hold are hardly defended by them. Knows: its own
data. Source: Wang, Sreenivasan, Rajput, Vishwakarma, Agarwal, Sohn, Lee and Papailiopoulos, "Attack
of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020, definition 1. There
the tail comes from other data sets (Ardis digits, Southwest aeroplanes), or by a density of a
model's features; here it is the class's own, by a density of its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import with_malicious_rows
from fedexp.attacks.labels import refuse_several_labels
from fedexp.core.checks import InputError, at_least, in_range, positive
from fedexp.core.examples import Split
from fedexp.core.types import Rule, Updates

FLOOR = 0.05  # of a pixel's standard deviation, in the unit of the pixels


@final
@dataclass(frozen=True)
class EdgeCase:
    """Relabel the tail of the source class; multiply the malicious rows by `boost`.

    Args:
        source_label: the class whose unusual images are meant, 0..num_classes-1.
        target_label: the answer that they are to get; another class.
        tail_share: p, above 0 and at most 1.
        boost: factor on a malicious row; 1 leaves it.
        num_classes: C, at least 2.
    """

    sees_other_clients = False

    source_label: int
    target_label: int
    tail_share: float
    boost: float
    num_classes: int

    def __post_init__(self) -> None:
        at_least(2, num_classes=self.num_classes)
        at_least(0, source_label=self.source_label, target_label=self.target_label)
        last = self.num_classes - 1
        in_range(0, last, source_label=self.source_label, target_label=self.target_label)
        if self.source_label == self.target_label:
            raise InputError(
                "must be another class than source_label", "target_label", self.target_label
            )
        if not 0 < self.tail_share <= 1:
            raise InputError("must be above 0 and at most 1", "tail_share", self.tail_share)
        positive(boost=self.boost)

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The data with the tail of the source class relabelled; itself where there is none."""
        refuse_several_labels(data, "edge_case")
        tail = self._tail(data)
        if not len(tail):
            return data
        y = data.y.clone()
        y[tail] = self.target_label
        return data.with_y(y)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows boosted."""
        if self.boost == 1:
            return updates
        return with_malicious_rows(updates, malicious, self.boost * updates.matrix[malicious])

    def targeted_examples(self, data: Split) -> Split:
        """The tail of the source class, with the target as the answer."""
        wanted = data.rows(self._tail(data))
        return wanted.with_y(torch.full_like(wanted.y, self.target_label))

    def _tail(self, data: Split) -> Tensor:
        """Row numbers of the unusual images of the source class, most unusual first: int64."""
        of_class = torch.nonzero(data.y == self.source_label).flatten()
        x = data.x[of_class].flatten(1)
        if not len(x):
            return of_class
        deviation = x.std(dim=0, correction=0).clamp_min(FLOOR)
        distance = (((x - x.mean(dim=0)) / deviation) ** 2).sum(dim=1)
        return of_class[distance.argsort(descending=True, stable=True)][
            : max(1, round(self.tail_share * len(x)))
        ]
