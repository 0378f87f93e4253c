"""From a person's own examples, divided, to a `Dataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.data.records import PARTS, Records


def in_order(records: Records, parts: np.ndarray) -> np.ndarray:
    """`[n]` int64 rows, part by part and in each site by site: what belongs together side by side.

    A part, and a site's share of it, are then views and not copies.
    """
    site = np.zeros(len(records), np.int64) if records.site is None else records.site
    return np.lexsort((np.arange(len(records)), site, parts))


def dataset_of(
    name: str,
    x: Tensor,
    divisor: float,
    records: Records,
    parts: np.ndarray,
    remarks: Sequence[str],
) -> Dataset:
    """The dataset of examples that lie `in_order`.

    Args:
        name: of the collection.
        x: `[n, *shape]`.
        divisor: of bytes.
        records: of the same rows.
        parts: `[n]` places in `PARTS`, ascending.
        remarks: what a person should know.
    """
    whole = Split(
        x,
        torch.from_numpy(records.y),
        None if records.site is None else torch.from_numpy(records.site),
        None if records.subject is None else torch.from_numpy(records.subject),
        divisor,
    )
    ends = np.searchsorted(parts, np.arange(len(PARTS) + 1)).tolist()
    train, validation, test = (whole.between(ends[k], ends[k + 1]) for k in range(len(PARTS)))
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=records.class_names,
        site_names=records.site_names,
        remarks=tuple(remarks),
    )


@contextmanager
def about(path: str) -> Iterator[None]:
    """Puts the path of the data before the InputErrors that pass and are about no other key."""
    try:
        yield
    except InputError as error:
        if error.key is not None:
            raise
        raise type(error)(error.reason, "path", path) from None
