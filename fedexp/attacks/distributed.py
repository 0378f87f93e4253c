"""Distributed backdoor (DBA): every malicious client plants a part of the trigger only.

Four bars in a corner are the whole trigger: two rows of two, `length` pixels long and one high,
`gap` pixels apart, `shift` pixels from the edges. Malicious client i marks its images with bar
i mod 4; what is asked for afterwards is the answer to images with all four.

      shift ->  ####  ####
                gap
                ####  ####

Knows: its own data, and which of the parts is its own. Source: Xie, Huang, Chen and Li, "DBA:
Distributed Backdoor Attacks against Federated Learning", ICLR 2020, section 3 (trigger size, gap
and location; on MNIST there 4, 2 and 0).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from fedexp.attacks.planted import PlantedTrigger, refuse_what_are_no_images
from fedexp.core.checks import InputError, at_least, in_range

PARTS = 4


@final
@dataclass(frozen=True, kw_only=True)
class Distributed(PlantedTrigger):
    """Four bars as the trigger, dealt to the malicious clients.

    Args:
        length: of a bar, in pixels.
        gap: between bars, in pixels, both ways.
        shift: from the top and the left edge, in pixels.
        trigger_value: the bars' brightness, 0 to 1, in all channels.
        target_label: see `PlantedTrigger`, as for what follows.
        poisoned_fraction: share of a client's examples.
        boost: factor on a malicious row.
        mask_share: share of the coordinates left alone.
        num_classes: C.
        part: the one that a client plants, 0 to 3; None: they are dealt out.
    """

    length: int
    gap: int
    shift: int
    trigger_value: float
    part: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, length=self.length)
        at_least(0, gap=self.gap, shift=self.shift)
        in_range(0, 1, trigger_value=self.trigger_value)
        if self.part is not None:
            at_least(0, part=self.part)
            in_range(0, PARTS - 1, part=self.part)

    def of_client(self, number: int) -> Distributed:
        """As the malicious client with that number among them carries it out."""
        return self if self.part is not None else replace(self, part=number % PARTS)

    def with_trigger(self, x: Tensor) -> Tensor:
        """Copies of images `[n, channels, height, width]` with all bars."""
        return self._marked(x, range(PARTS))

    def with_own_trigger(self, x: Tensor) -> Tensor:
        """Copies with the bar of this client."""
        return self._marked(x, range(PARTS) if self.part is None else (self.part,))

    def _marked(self, x: Tensor, parts: range | tuple[int, ...]) -> Tensor:
        refuse_what_are_no_images(x, "length", self.length)
        height, width = x.shape[2:]
        if self.shift + 2 + self.gap > height or self.shift + 2 * self.length + self.gap > width:
            raise InputError(
                f"four bars of it, {self.gap} apart and {self.shift} from the edges, do not fit "
                f"into images of {height} x {width}",
                "length",
                self.length,
            )
        marked = x.clone()
        for part in parts:
            row, column = divmod(part, 2)
            top = self.shift + row * (1 + self.gap)
            left = self.shift + column * (self.length + self.gap)
            marked[:, :, top, left : left + self.length] = self.trigger_value
        return marked
