"""How many clients a block may have, from the device's memory and what a client takes of it.

All the memory that the device has is asked for, not what is free just now: the bits of a step may
depend on how many clients are in a block, and a run is to give the same ones again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch.autograd.graph import saved_tensors_hooks

from fedexp.core.blocks import TrainsBlocks
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel

SHARE = 0.6  # of a GPU's memory; the rest is for what kernels need, and for fragments
OF_A_CPU = 2**30  # bytes: blocks are slower there than one client after the other, and for tests
BYTES = 4  # a float32


@final
@dataclass(frozen=True)
class Room:
    """What there is on a device, and what takes it."""

    bytes: int  # that there are for us
    taken: int  # bytes of the data and the rows
    d: int  # numbers in the model
    kept: int  # numbers that a pass keeps for one example

    def clients(self, trainer: TrainsBlocks, n: int) -> int:
        """Clients a block, at least 1, of which the largest has n examples."""
        of_a_client = BYTES * trainer.numbers_in_a_block(n, self.d, self.kept)
        return max(1, (self.bytes - self.taken) // of_a_client)


def usable_bytes(device: torch.device) -> int:
    """Of the device's memory."""
    if device.type == "cpu":
        return OF_A_CPU
    return int(SHARE * torch.cuda.get_device_properties(device).total_memory)


def numbers_kept(model: TaskModel, part: Split) -> int:
    """Numbers that a pass through the model keeps for each example until it has its gradients."""
    batch = part.between(0, 1)
    own = {parameter.data_ptr() for parameter in model.parameters}
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        model.task.losses(model.module(model.arrange(batch)), batch.y)
    return sum(kept)
