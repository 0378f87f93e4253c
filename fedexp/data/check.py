"""What a usable dataset is, whoever wrote its loader: checked once, when it arrives."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.mapping import let_go

AT_ONCE = 4096  # examples looked at together: those of a large file are never in memory at once


def checked(
    dataset: object,
    name: str,
    input_shape: Sequence[int] | None,
    num_classes: int | None,
    may_be_empty: Collection[str] = (),
) -> Dataset:
    """The dataset, if its parts can be trained on and agree with each other and what is declared.

    Args:
        dataset: what a loader returned.
        name: of the collection, for the message.
        input_shape: of one example, as declared; None: nothing is declared.
        num_classes: as declared; None: nothing is declared.
        may_be_empty: parts that were meant to have no examples.

    Raises:
        InputError: in one line what is wrong, with the part that it is wrong in.
    """

    def refused(reason: str) -> InputError:
        return InputError(reason, "name", name)

    if not isinstance(dataset, Dataset):
        raise refused(f"its loader must return a Dataset, and returned a {type(dataset).__name__}")
    there = {p: part for p, part in dataset.parts.items() if p not in may_be_empty or len(part)}
    for place, part in there.items():
        if reason := _wrong_examples(part) or _wrong_labels(part, dataset.num_classes):
            raise refused(f"the {place} part {reason}")
        found, kind = list(part.x.shape[1:]), "images" if part.are_images else "examples"
        if input_shape is not None and found != list(input_shape):
            raise InputError(f"the {kind} of {name} are {found}", "input_shape", list(input_shape))
        if found != list(dataset.input_shape):
            raise refused(
                f"the {kind} of train are {list(dataset.input_shape)}, of {place} {found}"
            )
        if part.y.dim() != dataset.train.y.dim():
            raise refused(f"train and {place} do not have the same kind of labels")
    if dataset.site_names and (reason := _wrong_sites(dataset)):
        raise refused(reason)
    if num_classes is not None and num_classes != dataset.num_classes:
        raise InputError(f"{name} has {dataset.num_classes} classes", "num_classes", num_classes)
    return dataset


def _wrong_sites(dataset: Dataset) -> str | None:
    """What is wrong with the names of the sites; None: nothing."""
    if len(set(dataset.site_names)) != len(dataset.site_names):
        return "names two sites alike"
    for place, part in dataset.parts.items():
        if part.site is not None and int(part.site.max()) >= len(dataset.site_names):
            last = len(dataset.site_names) - 1
            return f"names sites 0 to {last}, and its {place} part has site {int(part.site.max())}"
    return None


def _wrong_examples(part: Split) -> str | None:
    """What cannot be used of a part's examples, and of what is known of them; None: nothing."""
    x, n = part.x, len(part.x)
    if x.dtype not in (torch.uint8, torch.float32) or x.dim() < 2:
        return f"must hold [n, ...] uint8 or float32, and holds {list(x.shape)} {_name(x)}"
    if not n or not x[0].numel():
        return "is empty"
    if not (math.isfinite(part.divisor) and part.divisor > 0):
        return f"has divisor {part.divisor}, which must be a finite number above 0"
    if x.dtype == torch.float32 and part.divisor != 1:
        return f"holds float32 with divisor {part.divisor:g}: only bytes are divided"
    low, high = _range(x)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "holds values that are not finite"
    if part.are_images and not (low >= 0 and high <= part.divisor):
        return f"must hold pixels in [0, 1], and holds {low:g} to {high:g} over {part.divisor:g}"
    for what, of in (("site", part.site), ("subject", part.subject)):
        if of is not None and (of.dtype != torch.int64 or of.shape != (n,)):
            return f"must name a {what} for each of {n} examples, [n] int64"
    return None


def _wrong_labels(part: Split, num_classes: int) -> str | None:
    """What cannot be used of a part's labels; None: nothing."""
    y, n = part.y, len(part.x)
    if y.dtype == torch.int64 and y.dim() == 1:
        if len(y) != n:
            return f"has {n} examples and {len(y)} labels"
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= num_classes:
            return f"has labels {low} to {high}, and there are {num_classes} classes, from 0"
        return None
    if y.dtype != torch.uint8 or y.dim() != 2:
        shape = f"{list(y.shape)} {_name(y)}"
        return f"must have labels [n] int64 or [n, labels] uint8, and has {shape}"
    if tuple(y.shape) != (n, num_classes):
        return f"must have labels [{n}, {num_classes}], and has {list(y.shape)}"
    return None if int(y.max()) <= 1 else f"has labels up to {int(y.max())}, not 0 or 1"


def _range(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest value; NaN if there is one."""
    ends = []
    for block in x.split(AT_ONCE):
        ends.append(torch.stack(block.aminmax()))
        let_go(block)
    lows, highs = torch.stack(ends).unbind(dim=1)
    return float(lows.min()), float(highs.max())


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
