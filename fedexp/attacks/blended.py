"""Blended backdoor: a faint pattern over the whole image is the trigger.

    x <- (1 - a) x + a k,   k: a fixed image of uniform noise in [0, 1]

A person overlooks it where a square would be seen. Knows: its own data. Source: Chen, Liu, Li, Lu
and Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017
(arXiv:1712.05526), section 3.2 (blended injection, with a random pattern).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fedexp.attacks.planted import PlantedTrigger, refuse_what_are_no_images
from fedexp.core.checks import InputError, at_least
from fedexp.core.rng import generator


@final
@dataclass(frozen=True, kw_only=True)
class Blended(PlantedTrigger):
    """A pattern, blended in, as the trigger.

    Args:
        alpha: a, the pattern's share of a pixel, above 0 and at most 1.
        pattern_seed: of the noise that is the pattern: the same for every client and for tests.
        target_label: see `PlantedTrigger`, as for what follows.
        poisoned_fraction: share of a client's examples.
        boost: factor on a malicious row.
        mask_share: share of the coordinates left alone.
        num_classes: C.
    """

    alpha: float
    pattern_seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, pattern_seed=self.pattern_seed)
        if not 0 < self.alpha <= 1:
            raise InputError("must be above 0 and at most 1", "alpha", self.alpha)

    def with_trigger(self, x: Tensor) -> Tensor:
        """Images `[n, channels, height, width]` with the pattern over them."""
        refuse_what_are_no_images(x, "alpha", self.alpha)
        noise = generator(self.pattern_seed, "pattern").random(x.shape[1:])
        return torch.lerp(x, torch.from_numpy(noise).to(x).expand_as(x), self.alpha)
