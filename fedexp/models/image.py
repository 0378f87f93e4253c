"""The shape of an image, for models that take nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.core.checks import InputError


def image_shape(input_shape: Sequence[int], least: int = 1) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        InputError: it is the shape of something else, or has fewer than `least` pixels a side.

    >>> image_shape([30])
    Traceback (most recent call last):
    fedexp.core.checks.InputError: input_shape=[30]: needs images (channels, height, width); ...
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        size = f" of at least {least}x{least} pixels" if least > 1 else ""
        raise InputError(
            f"needs images (channels, height, width){size}; model=mlp takes examples of any shape",
            "input_shape",
            list(input_shape),
        )
    channels, height, width = input_shape
    return channels, height, width
