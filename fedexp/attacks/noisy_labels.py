"""Noisy labels: some of a client's labels are wrong, as a careless annotator's are.

    y <- another class, uniformly, for a share of the examples, drawn without replacement

Knows: its own data only; it wants nothing, but a defence may take it for an attack. Source: the
symmetric noise of Patrini, Rozza, Menon, Nock and Qu, "Making Deep Neural Networks Robust to Label
Noise: A Loss Correction Approach", CVPR 2017. A replaced label is always wrong here;
where noise is drawn from all classes, one in C is right by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch

from fedexp.attacks.base import LeavesRows
from fedexp.attacks.labels import drawn_rows, other_classes, refuse_several_labels
from fedexp.core.checks import at_least, in_range
from fedexp.core.examples import Split


@final
@dataclass(frozen=True)
class NoisyLabels(LeavesRows):
    """A share of the malicious clients' labels replaced by other classes, uniformly.

    Args:
        noise_fraction: share of a client's labels that are replaced, to the nearest example.
        num_classes: C, at least 2.
    """

    sees_other_clients: ClassVar[bool] = False
    targets_by_example: ClassVar[bool] = True

    noise_fraction: float
    num_classes: int

    def __post_init__(self) -> None:
        in_range(0, 1, noise_fraction=self.noise_fraction)
        at_least(2, num_classes=self.num_classes)

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """The same examples, some with another label; InputError unless each has one class."""
        refuse_several_labels(data, "noisy_labels")
        noisy = drawn_rows(len(data), self.noise_fraction, rng)
        y = data.y.clone()
        y[noisy] = other_classes(y[noisy], self.num_classes, rng)
        return data.with_y(y)

    def targeted_examples(self, data: Split) -> Split:
        """Empty: the noise wants no answer in particular."""
        return data.rows(torch.empty(0, dtype=torch.int64))
