"""What share of the weight each client has, when sites are unequal and one of them may lie.

    s_k = min(cap, c n_k),   c such that the shares sum to 1

Weights are the numbers of examples n_k. A cap on any site's share bounds what one site can do,
whether it is large or only says so. What the cap cuts off goes to the others in proportion to their
weights, and so on until nobody is above it (water filling). Where n clients cannot keep the cap
(n cap < 1) all weigh alike.

A rule that withstands f of n equal clients has, among unequal ones, to withstand the largest share
that f of them can hold: that of the f heaviest (`held_by`). In units of the smallest share a site
of share s is s / u clients who all send the same, and every rule here is the plain one on these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedexp.core.checks import InputError, in_range, refuse_majority

ROUNDING = 1e-9
"""Shares are sums of float64: closer ones than this are the same."""


def check_cap(max_share: float | None) -> None:
    """Refuse what is no share; None leaves it to the rule."""
    if max_share is not None:
        in_range(0, 1, max_share=max_share)
        if max_share == 0:
            raise InputError("must be above 0: somebody has to weigh something", "max_share", 0)


def capped_shares(weights: Tensor, cap: float) -> Tensor:
    """Shares `[n]` float64 that sum to 1, in proportion to `weights` `[n]` up to the cap.

    Clients without weight have none; where nobody has any, or the others cannot keep the cap, all
    of these weigh alike.

    >>> capped_shares(torch.tensor([1.0, 2.0, 7.0]), cap=1.0)
    tensor([0.1000, 0.2000, 0.7000], dtype=torch.float64)
    >>> capped_shares(torch.tensor([1.0, 2.0, 7.0]), cap=0.4)  # 0.6 are left, 1 to 2
    tensor([0.2000, 0.4000, 0.4000], dtype=torch.float64)
    >>> capped_shares(torch.tensor([1.0, 9.0]), cap=0.3)
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    weights = weights.to(torch.float64)
    if not bool((weights > 0).any()):
        weights = torch.ones_like(weights)
    present = weights > 0
    if int(present.sum()) * cap <= 1:
        return present.to(torch.float64) / present.sum()
    shares = weights / weights.sum()
    full = torch.zeros_like(present)
    while bool(((shares > cap * (1 + ROUNDING)) & ~full).any()):
        full |= shares > cap * (1 + ROUNDING)
        rest = weights.masked_fill(full, 0)
        left = 1 - cap * int(full.sum())
        shares = (rest * (left / float(rest.sum()))).masked_fill(full, cap)
    return shares


def held_by(shares: Tensor, f: int) -> float:
    """The largest share that f of the clients hold together.

    >>> held_by(torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64), 2)
    0.75
    """
    return float(shares.sort(descending=True).values[:f].sum())


def shares_against(
    weights: Tensor, f: int, max_share: float | None, spare: int = 1
) -> tuple[Tensor, float]:
    """Shares `[n]` in which f clients hold less than half, and what they can hold at most.

    Args:
        weights: `[n]`, numbers of examples.
        f: how many of the clients may lie.
        max_share: the cap; None takes 1 / (2f + spare), with which f clients are never more than f
            of 2f + spare equal ones.
        spare: how many clients the plain rule needs beyond 2f.

    Raises:
        InputError: half or more of the clients, or of the weight, may lie.
    """
    refuse_majority(len(weights), f)
    cap = (1 / (2 * f + spare) if f else 1.0) if max_share is None else float(max_share)
    shares = capped_shares(weights, cap)
    held = held_by(shares, f)
    if 2 * held >= 1 - ROUNDING and f:
        raise InputError(
            f"the {f} heaviest of the {len(weights)} clients that answered hold {held:.1%} of the "
            f"weight, and a rule withstands less than half: use at most 1 / {2 * f + spare} = "
            f"{1 / (2 * f + spare):.3f}",
            "max_share",
            max_share,
        )
    return shares, held


def masses_up_to(ordered: Tensor, mass: float | Tensor) -> Tensor:
    """How much of each share is within the first `mass`: `[..., n]` to `[..., n]`.

    Shares are taken from the front of the last axis; the one on the border in part.

    >>> masses_up_to(torch.tensor([0.5, 0.3, 0.2]), 0.6)
    tensor([0.5000, 0.1000, 0.0000])
    """
    before = ordered.cumsum(dim=-1) - ordered
    left = mass - before
    taken = torch.minimum(left.clamp_min(0), ordered)
    # What rounding leaves of the next row must not count: that row may be a liar's, and huge.
    return taken.masked_fill(taken <= ROUNDING, 0)
