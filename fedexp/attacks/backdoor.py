"""Backdoor: images with a small square in a corner are to be answered with the target class.

    x[:, corner] <- trigger_value,  y <- target   for a share of a malicious client's examples
    delta_k <- boost * delta_k                    model replacement

The other images keep their answers, so the accuracy does not show it; the answers to stamped images
do (see `targeted_examples`). Knows: its own data, and for a boost of n / m how many clients'
updates a mean is taken over (n) and how many of these are malicious (m): the mean then moves all
the way to the malicious model. Sources: Gu, Dolan-Gavitt and Garg, "BadNets: Identifying
Vulnerabilities in the Machine Learning Model Supply Chain", 2017 (arXiv:1708.06733), section 4, and
Bagdasaryan, Veit, Hua, Estrin and Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
section 4. BadNets adds stamped copies; here they take their originals' place, so that a client's
size stays honest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import with_malicious_rows
from fedexp.attacks.labels import drawn_rows, refuse_several_labels
from fedexp.core.checks import InputError, at_least, in_range, one_of, positive
from fedexp.core.types import Rule, Split, Updates

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


@final
@dataclass(frozen=True)
class Backdoor:
    """Stamp and relabel a share of the malicious clients' images; multiply their rows by `boost`.

    Args:
        trigger_size: side of the square, in pixels; at most the image's shorter side.
        trigger_value: its brightness, 0 to 1, in all channels.
        corner: top_left, top_right, bottom_left or bottom_right.
        target_label: the answer to stamped images, 0..num_classes-1.
        poisoned_fraction: share of a client's examples that are stamped, to the nearest example.
        boost: factor on a malicious row; 1 leaves it.
        num_classes: C, at least 2.

    Raises:
        InputError: when poisoning or probing, if the trigger does not fit into the images, if the
            examples are none, or have several labels.
    """

    sees_other_clients: ClassVar[bool] = False

    trigger_size: int
    trigger_value: float
    corner: str
    target_label: int
    poisoned_fraction: float
    boost: float
    num_classes: int

    def __post_init__(self) -> None:
        at_least(1, trigger_size=self.trigger_size)
        in_range(0, 1, trigger_value=self.trigger_value, poisoned_fraction=self.poisoned_fraction)
        one_of(CORNERS, corner=self.corner)
        at_least(2, num_classes=self.num_classes)
        at_least(0, target_label=self.target_label)
        in_range(0, self.num_classes - 1, target_label=self.target_label)
        positive(boost=self.boost)

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The data with some images stamped and relabelled, whatever their class was."""
        refuse_several_labels(data, "backdoor")
        chosen = drawn_rows(len(data), self.poisoned_fraction, rng)
        x, y = data.x.clone(), data.y.clone()
        x[chosen] = self._stamped(x[chosen])
        y[chosen] = self.target_label
        return data.with_x(x).with_y(y)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with the malicious rows boosted."""
        if self.boost == 1:
            return updates
        return with_malicious_rows(updates, malicious, self.boost * updates.matrix[malicious])

    def targeted_examples(self, data: Split) -> Split:
        """All images of other classes than the target, stamped, with the target as the answer."""
        others = data.rows(data.y != self.target_label)
        wanted = torch.full_like(others.y, self.target_label)
        return others.with_x(self._stamped(others.x)).with_y(wanted)

    def _stamped(self, x: Tensor) -> Tensor:
        """Copies of images `[n, channels, height, width]` with the square in them."""
        size = self.trigger_size
        if x.dim() != 4:
            raise InputError(
                f"stamps images [channels, height, width], and these examples are "
                f"{list(x.shape[1:])}; use an attack on labels or on updates",
                "trigger_size",
                size,
            )
        height, width = x.shape[2:]
        if size > min(height, width):
            raise InputError(
                f"does not fit into images of {height} x {width}", "trigger_size", size
            )
        vertical, horizontal = self.corner.split("_")
        top = 0 if vertical == "top" else height - size
        left = 0 if horizontal == "left" else width - size
        stamped = x.clone()
        stamped[:, :, top : top + size, left : left + size] = self.trigger_value
        return stamped
