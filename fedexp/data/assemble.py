"""From a publisher's arrays to a `Dataset`; what a usable one is says `fedexp.data.check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.examples import Dataset, Split
from fedexp.core.rng import legacy_generator
from fedexp.data.check import checked
from fedexp.data.download import damaged


def image_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """(channels, height, width) from a config's list, as a tuple, which can be hashed.

    Raises:
        InputError: it is not three whole numbers above 0.

    >>> image_shape([3, 28, 28])
    (3, 28, 28)
    """
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        reason = "must be [channels, height, width], three whole numbers above 0"
        raise InputError(reason, "input_shape", input_shape)
    return shape


def check_sizes(split_seed: int, validation_size: int, **sizes: int) -> None:
    """Refuse a seed that scikit-learn cannot take, and parts of no example.

    There need be no validation part.
    """
    at_least(0, validation_size=validation_size)
    at_least(1, **sizes)
    at_least(0, split_seed=split_seed)
    if split_seed >= 2**32:
        raise InputError("must be below 2**32", "split_seed", split_seed)


def image_split(
    x: np.ndarray,
    y: np.ndarray,
    num_classes: int,
    source: Path | str,
    dataset: str,
    divisor: float = 1.0,
) -> Split:
    """Labelled images as a file has them, checked.

    Args:
        x: pixels `[n, channels, height, width]`, uint8 from 0 to `divisor`, or float32 in [0, 1];
            kept without a copy where it can be written to.
        y: labels `[n]`, whole numbers from 0 to `num_classes` - 1.
        num_classes: how many classes the publisher names.
        source: where the arrays come from, for the message.
        dataset: the collection's name, for the message.
        divisor: what a pixel of 1 is stored as; 1 for float32.

    Raises:
        InputError: one of the above does not hold, or there is nothing at all.
    """
    if x.ndim != 4 or y.shape != x.shape[:1]:
        reason = f"expected one label an image, found images {x.shape} and labels {y.shape}"
        raise damaged(source, reason, dataset)
    pixels = _pixels(x, source, dataset, divisor)
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= num_classes:
        reason = f"expected whole labels 0 to {num_classes - 1}, found {y.min()} to {y.max()}"
        raise damaged(source, reason, dataset)
    return Split(pixels, torch.from_numpy(y.astype(np.int64)), divisor=divisor)


def several_labels(
    x: np.ndarray,
    y: np.ndarray,
    num_classes: int,
    source: Path | str,
    dataset: str,
    divisor: float = 1.0,
) -> Split:
    """As `image_split`, for images of any number of labels: `y` `[n, num_classes]` of 0 and 1.

    Raises:
        InputError: as `image_split`.
    """
    if x.ndim != 4 or y.shape != (*x.shape[:1], num_classes):
        reason = f"expected {num_classes} labels an image, found images {x.shape} and labels "
        raise damaged(source, f"{reason}{y.shape}", dataset)
    pixels = _pixels(x, source, dataset, divisor)
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() > 1:
        reason = f"expected labels of 0 and 1, found {y.min()} to {y.max()}"
        raise damaged(source, reason, dataset)
    return Split(pixels, torch.from_numpy(y.astype(np.uint8)), divisor=divisor)


def _pixels(x: np.ndarray, source: Path | str, dataset: str, divisor: float) -> Tensor:
    if x.size == 0:
        raise damaged(source, "expected images, found none", dataset)
    # A minimum over anything that is not a number is not a number, and fails the comparison.
    if not (x.min() >= 0 and x.max() <= divisor):
        span = "in [0, 1]" if divisor == 1 else f"from 0 to {divisor:g}"
        reason = f"expected pixels {span}, found {x.min()} to {x.max()}"
        raise damaged(source, reason, dataset)
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def stratified(
    whole: Split, size: int, split_seed: int, key: str = "validation_size"
) -> tuple[Split, Split]:
    """Divide `whole` into (the rest, a part of `size` examples), classes in the same proportion.

    The rows of both keep their order. The same `split_seed` gives the same parts; a run's own seed
    plays no role, so every run is measured on the same examples. A part of 0 leaves all as it is.

    Raises:
        InputError: there are too few examples, of all or of one class; it names `key`.
    """
    if size == 0:
        return whole, whole.between(0, 0)
    y = whole.y.numpy()
    n_present = len(np.unique(y))
    if not n_present <= size <= len(whole) - n_present:
        reason = f"must be 0 or lie between {n_present} and {len(whole) - n_present}"
        raise InputError(f"{reason} to split {len(whole)} examples by class", key, size)
    counts = np.bincount(y)
    if counts[counts > 0].min() < 2:
        raise InputError("cannot be split by class: of one there is a single example", key, size)
    taken = _drawn_by_class(y, size, split_seed)
    return (
        whole.rows(torch.from_numpy(np.flatnonzero(~taken))),
        whole.rows(torch.from_numpy(np.flatnonzero(taken))),
    )


def _drawn_by_class(y: np.ndarray, size: int, seed: int) -> np.ndarray:
    """`size` of the examples of classes y `[n]`, each class in proportion: `[n]` bool.

    The examples that scikit-learn 1.x draws (`StratifiedShuffleSplit`), draw by draw, so that
    data sets stay divided as they always were, without a second of importing it.
    """
    rng = legacy_generator(seed)
    _, of_class, counts = np.unique(y, return_inverse=True, return_counts=True)
    kept = _in_proportion(counts, len(y) - size, rng)
    drawn = _in_proportion(counts - kept, size, rng)
    taken = np.zeros(len(y), dtype=bool)
    for c, count in enumerate(counts):
        members = np.flatnonzero(of_class == c)[rng.permutation(count)]
        taken[members[kept[c] : kept[c] + drawn[c]]] = True
    return taken


def _in_proportion(counts: np.ndarray, size: int, rng: Any) -> np.ndarray:
    """How many of each class; what rounding down left goes to the largest rests, ties by lot."""
    shares = counts / counts.sum() * size
    whole = np.floor(shares)
    rests = shares - whole
    for rest in np.unique(rests)[::-1]:
        left = int(size - whole.sum())
        if left > 0:
            alike = np.flatnonzero(rests == rest)
            whole[rng.choice(alike, size=min(len(alike), left), replace=False)] += 1
    counted: np.ndarray = whole.astype(np.int64)
    return counted


def assemble(
    name: str,
    train: Split,
    validation: Split,
    test: Split,
    class_names: tuple[str, ...],
    input_shape: tuple[int, ...],
    num_classes: int,
) -> Dataset:
    """The dataset, if its parts agree with each other and with what the config declares.

    The validation part may be empty: who takes none of the training part for it has asked for that.

    Raises:
        InputError: `input_shape` or `num_classes` is not what was loaded.
    """
    dataset = Dataset(name, train, validation, test, class_names)
    return checked(dataset, name, input_shape, num_classes, may_be_empty=("validation",))
