"""What a study of leakage finds: figures, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


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
    # The adversary's name by subject, that of all other subjects under "" (leakage/adversaries.py).
    adversaries: Mapping[str, str] = field(default_factory=dict)
    # What it has cost before the study itself began, while the run went on.
    seconds_before: float = 0.0
