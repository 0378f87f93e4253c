"""What a study of a finished run gives back: figures with what they are of, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.types import Dataset
from fedexp.leakage.victim import Victim

Progress = Callable[[float], None]
"""Called as the work goes on, with the share of it that is done, in [0, 1]."""


@dataclass(frozen=True)
class Figure:
    """One measured number about one thing that was attacked."""

    subject: str  # what was attacked, or what it is compared with: "reconstruction", "mean image"
    round: int  # the model of which round, or the round of the update
    target: int  # which of the things attacked (an image, a class, a canary), from 0
    metric: str  # psnr_db, ssim, mse, label_recovered, auc, tpr_at_1_percent_fpr, ...
    value: float


@dataclass(frozen=True)
class Findings:
    """All that one study found."""

    figures: Sequence[Figure]
    # For the report's head and the sweep's table: metric -> value; `x_low` and `x_high` beside an
    # `x` are the ends of its interval.
    headline: Mapping[str, float]
    # Arrays that plots are drawn from, by name; kept in pictures.npz.
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    # Sentences made from the figures, and what a reader has to know.
    conclusions: Sequence[str] = ()
    # What the adversary sees and knows, in words.
    adversary: str = ""


class Study(Protocol):
    """An attack on a finished run together with what judges it. It alone knows the truth."""

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Carry it out; same run and same settings, same findings, whatever ran before.

        Raises:
            InputError: this run cannot be studied so.
        """


def refuse_other_than_images(dataset: Dataset) -> None:
    """Raise InputError unless the examples are images, which a study gives back or compares."""
    if not dataset.train.are_images:
        raise InputError(
            f"is about images [channels, height, width], and the examples are "
            f"{list(dataset.input_shape)}; use leakage=loss_threshold, lira or audit",
            "dataset",
            dataset.name,
        )


def refuse_several_labels(dataset: Dataset) -> None:
    """Raise InputError unless every example has one class, which a study asks for."""
    if not dataset.train.one_class:
        raise InputError(
            "needs one class an example, and these examples have any number of labels; use a "
            "study that asks for none, such as leakage=audit of a run with privacy=client_dp",
            "dataset",
            dataset.name,
        )
