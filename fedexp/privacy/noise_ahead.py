"""The noise of the next step is drawn while this one is worked on, where a core is free for it.

Much of a step of DP-SGD on a small model is its noise, a normal number for every parameter, which
depends on nothing that the step before does. A thread draws it: NumPy and torch let go of the
interpreter meanwhile. The stream is read in the same order, so the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from fedexp.core.cores import cores_to_spare


def noise_ahead(
    fill: Callable[[Tensor], object], gradient: Tensor, steps: int
) -> Generator[None, None, None]:
    """Fill `gradient` `[d]` before each of `steps` steps, which may do with it what they like.

    Args:
        fill: overwrites a vector `[d]` with the next numbers of one stream.
        gradient: on any device.
        steps: how many times; no more is drawn.
    """
    if not gradient.is_cpu or cores_to_spare() == 1:
        for _ in range(steps):
            fill(gradient)
            yield
        return
    ahead = torch.empty_like(gradient)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise") as thread:
        drawn = thread.submit(fill, ahead)
        for step in range(steps):
            drawn.result()
            gradient.copy_(ahead)
            if step < steps - 1:
                drawn = thread.submit(fill, ahead)
            yield
