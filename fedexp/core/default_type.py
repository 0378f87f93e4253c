"""torch has one type for new numbers in the whole program: a part that sets it does so for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedexp.core.checks import InputError


@contextmanager
def default_type_kept(key: str | None = None, value: object = None) -> Iterator[None]:
    """Put torch's default type back where what runs inside has set another.

    Args:
        key: of the config, which the error is to name, where it shows whose code has run.
        value: of that key.

    Raises:
        InputError: it has, in the place of the error that came of it.
    """
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        if (now := torch.get_default_dtype()) != before:
            torch.set_default_dtype(before)
            raise InputError(
                f"{'' if key else 'a part '}sets torch's default type to {now}, which all "
                "parts share; give dtype= to what is made, in the place of torch.set_default_dtype",
                key,
                value,
            )
