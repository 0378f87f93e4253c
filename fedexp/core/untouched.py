"""Whether a part has written to what it was shown, where it was to make something new.

torch counts what torch writes. What is written through NumPy, which shares the memory, it does not
count: there a sample of the numbers is compared.
"""

from __future__ import annotations

from torch import Tensor

NUMBERS = 2**10  # of a tensor, about, that are compared: this is asked dozens of times a round


def seen(*shown: Tensor) -> tuple[tuple[int, bytes], ...]:
    """To be compared before and after a part was called.

    >>> import torch
    >>> rows = torch.ones(2, 3)
    >>> before = seen(rows)
    >>> rows.numpy()[:] -= 1
    >>> seen(rows) == before
    False
    """
    return tuple((tensor._version, _sample(tensor)) for tensor in shown)


def written(*shown: Tensor) -> tuple[int, ...]:
    """The same of what is too much, or too far away, for a look at its numbers: torch's count."""
    return tuple(tensor._version for tensor in shown)


def _sample(tensor: Tensor) -> bytes:
    if tensor.device.type != "cpu":  # NumPy shares the memory of the CPU alone
        return b""
    # An odd step: a multiple of a row's length would look at one column.
    step = (tensor.numel() // NUMBERS) | 1
    sample: bytes = tensor.detach().reshape(-1)[::step].numpy().tobytes()
    return sample  # in which NaN equals itself
