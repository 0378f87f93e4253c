"""What becomes of flagged rows, for detectors that keep a row or do not."""

from __future__ import annotations

import torch
from torch import Tensor

from fedexp.core.checks import one_of
from fedexp.core.norms import row_norms
from fedexp.core.types import Verdict

ACTIONS = ("drop", "report")


def check_action(action: str) -> None:
    """Refuse words that are no action.

    >>> check_action("dropp")
    Traceback (most recent call last):
    fedexp.core.checks.InputError: action=dropp: did you mean drop? Allowed: drop, report
    """
    one_of(ACTIONS, action=action)


def verdict(scores: Tensor, threshold: float, action: str) -> Verdict:
    """On rows with `scores` `[n]` float64; "drop" takes all weight from those above the threshold.

    >>> verdict(torch.tensor([0.0, 1.0], dtype=torch.float64), 0.5, "drop").trust
    tensor([1., 0.], dtype=torch.float64)
    """
    trust = torch.ones_like(scores)
    if action == "drop":
        trust[scores > threshold] = 0
    return Verdict(scores, threshold, trust)


def of_marked(marked: Tensor, action: str) -> Verdict:
    """On rows of which some are marked `[n]` bool: score 1 for those, 0 for the others."""
    return verdict(marked.double(), 0.5, action)


def countable(matrix: Tensor) -> Tensor:
    """Whose length is a number, of rows `[n, d]`: `[n]` bool on the CPU; nobody honest's is not.

    >>> countable(torch.tensor([[1.0, 0.0], [3e38, 3e38], [torch.nan, 0.0]]))
    tensor([ True, False, False])
    """
    return row_norms(matrix).isfinite().cpu()
