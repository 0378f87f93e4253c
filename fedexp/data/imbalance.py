"""Long-tailed classes: training examples thinned out, class after class, down to a share.

    class c keeps at most n_max mu^(c / (C - 1)) examples,   c = 0 .. C - 1, at least 1

n_max are those of the largest class. Source: Cao, Wei, Gaidon, Arechiga and Ma, "Learning
Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, section 4, whose
imbalance ratio is 1 / mu; there all classes have n_max to begin with. Validation and test parts
stay as they are, as there, unless they are to be thinned out as well (`dataset.imbalance_of=all`):
others test where rare classes are rare, and then accuracy is that of the common ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedexp.core.checks import InputError, one_of
from fedexp.core.examples import Dataset, Split

OF = ("train", "all")


def check_factor(factor: float | None, of: str) -> None:
    """Refuse what is no share, and no parts to thin out.

    Raises:
        InputError: it names the key.
    """
    one_of(OF, **{"dataset.imbalance_of": of})
    if factor is None:
        if of != OF[0]:
            reason = "has no effect without dataset.imbalance"
            raise InputError(reason, "dataset.imbalance_of", of)
        return
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor <= 1:
        raise InputError(
            "must be a number above 0 and at most 1: what the last class keeps for each example "
            "of the first",
            "dataset.imbalance",
            factor,
        )


def sizes_kept(sizes: np.ndarray, factor: float) -> np.ndarray:
    """How many examples each class keeps, of the `sizes` `[C]` that there are.

    >>> sizes_kept(np.array([100, 100, 100]), 0.01).tolist()
    [100, 10, 1]
    >>> sizes_kept(np.array([50, 100, 3]), 0.25).tolist()
    [50, 50, 3]
    """
    place = np.arange(len(sizes)) / max(len(sizes) - 1, 1)
    # A little more, so that what is a whole number is not rounded down to the one below.
    most = np.floor(sizes.max() * float(factor) ** place + 1e-9).astype(np.int64)
    kept: np.ndarray = np.minimum(sizes, np.maximum(most, 1))
    return kept


def long_tailed(
    dataset: Dataset, factor: float, rng: np.random.Generator, of: str = OF[0]
) -> Dataset:
    """The dataset with parts in which the classes have `sizes_kept`, drawn at random.

    Args:
        dataset: left as it is.
        factor: mu.
        rng: says which examples of a class are kept.
        of: "train", or "all" parts.

    Raises:
        InputError: examples have several labels, and so no class of their own.
    """
    if not dataset.train.one_class:
        raise InputError(
            "thins out classes, and these examples have any number of labels",
            "dataset.imbalance",
            factor,
        )
    thinned: dict[str, Any] = {}
    said: list[str] = []
    for part in list(dataset.parts)[: None if of == "all" else 1]:
        thinned[part], sentences = _thinned(part, dataset, factor, rng)
        said += sentences
    return replace(dataset, **thinned, remarks=(*dataset.remarks, *said))


def _thinned(
    name: str, dataset: Dataset, factor: float, rng: np.random.Generator
) -> tuple[Split, list[str]]:
    """A part with `sizes_kept` of its classes, and a sentence about it; none about no examples."""
    part = dataset.parts[name]
    if not len(part):
        return part, []
    y = part.y.numpy()
    kept = sizes_kept(np.bincount(y, minlength=dataset.num_classes), factor)
    rows = [rng.permutation(np.flatnonzero(y == c))[:most] for c, most in enumerate(kept)]
    chosen = torch.from_numpy(np.sort(np.concatenate(rows)))
    said = (
        f"dataset.imbalance={factor:g} keeps {len(chosen):,} of {len(y):,} "
        f"{'training' if name == 'train' else name} examples: "
        f"{kept[0]:,} of the first class, {kept[-1]:,} of the last"
    )
    return part.rows(chosen), [said]
