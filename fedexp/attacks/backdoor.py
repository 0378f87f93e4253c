"""Backdoor: images with a small square in a corner are to be answered with the target class.

    x[:, corner] <- trigger_value,  y <- target   for a share of a malicious client's examples

Knows: its own data, and for a boost of n / m how many clients' updates a mean is taken over (n) and
how many of these are malicious (m). Sources: Gu, Dolan-Gavitt and Garg, "BadNets: Identifying
Vulnerabilities in the Machine Learning Model Supply Chain", 2017 (arXiv:1708.06733), section 4, and
Bagdasaryan, Veit, Hua, Estrin and Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
section 4. BadNets adds stamped copies; here they take their originals' place, so that a client's
size stays honest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from fedexp.attacks.planted import PlantedTrigger, refuse_what_are_no_images
from fedexp.core.checks import InputError, at_least, in_range, one_of

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


@final
@dataclass(frozen=True, kw_only=True)
class Backdoor(PlantedTrigger):
    """A square as the trigger.

    Args:
        trigger_size: its side, in pixels; at most the image's shorter side.
        trigger_value: its brightness, 0 to 1, in all channels.
        corner: top_left, top_right, bottom_left or bottom_right.
        target_label: see `PlantedTrigger`, as for what follows.
        poisoned_fraction: share of a client's examples.
        boost: factor on a malicious row.
        mask_share: share of the coordinates left alone.
        num_classes: C.
    """

    trigger_size: int
    trigger_value: float
    corner: str

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, trigger_size=self.trigger_size)
        in_range(0, 1, trigger_value=self.trigger_value)
        one_of(CORNERS, corner=self.corner)

    def with_trigger(self, x: Tensor) -> Tensor:
        """Copies of images `[n, channels, height, width]` with the square in them."""
        size = self.trigger_size
        refuse_what_are_no_images(x, "trigger_size", size)
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
