"""Label flip: a malicious client trains honestly on images with wrong labels.

    complement: y <- C - 1 - y          pair: source <- target          random: any wrong class
    C the number of classes, labels 0..C-1

Knows: its own data only. Sources: complement is Fang, Cao, Jia and Gong, "Local Model Poisoning
Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020 (its label flipping attack);
pair is Tolpegin, Truex, Gursoy and Liu, "Data Poisoning Attacks Against Federated Learning
Systems", ESORICS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.attacks.base import LeavesRows
from fedexp.attacks.labels import other_classes, refuse_several_labels
from fedexp.core.checks import InputError, at_least, in_range, one_of
from fedexp.core.examples import Split


@final
@dataclass(frozen=True)
class LabelFlip(LeavesRows):
    """All labels of the malicious clients changed, or with `pair` those of one class.

    Args:
        mode: complement, pair or random.
        num_classes: C, at least 2.
        source: with `pair`, the class whose labels are changed.
        target: with `pair`, what they become.

    >>> data = Split(torch.zeros(4, 1, 1, 1), torch.tensor([0, 1, 2, 2]))
    >>> LabelFlip("complement", num_classes=3, source=0, target=1).poison(data, None).y
    tensor([2, 1, 0, 0])
    >>> LabelFlip("pair", num_classes=3, source=2, target=0).poison(data, None).y
    tensor([0, 1, 0, 0])
    """

    sees_other_clients: ClassVar[bool] = False
    targets_by_example: ClassVar[bool] = True

    mode: str
    num_classes: int
    source: int
    target: int

    def __post_init__(self) -> None:
        one_of(("complement", "pair", "random"), mode=self.mode)
        at_least(2, num_classes=self.num_classes)
        at_least(0, source=self.source, target=self.target)
        in_range(0, self.num_classes - 1, source=self.source, target=self.target)
        if self.source == self.target:
            raise InputError("must differ from source", "target", self.target)

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The same examples with the labels changed; InputError unless each has one class."""
        refuse_several_labels(data, "label_flip")
        if self.mode == "random":
            return data.with_y(other_classes(data.y, self.num_classes, rng))
        return data.with_y(self._wanted(data.y))

    def targeted_examples(self, data: Split) -> Split:
        """The images that the adversary wants answered wrongly, with those answers."""
        wanted = self._wanted(data.y)
        return data.with_y(wanted).rows(wanted != data.y)

    def _wanted(self, y: Tensor) -> Tensor:
        """The answers to images of classes `y` `[n]`; `random` wants none in particular."""
        if self.mode == "complement":
            return self.num_classes - 1 - y
        if self.mode == "pair":
            return torch.where(y == self.source, self.target, y)
        return y
