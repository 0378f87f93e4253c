"""Evidence about a round's clients, added up over the rounds that each took part in.

Of something that is usually positive, and that a flipped update turns around, with x_k(t) the
client's value in round t:

    w_t  = max(0, median_k x_k(t))              how much the round shows of it at all
    s_t  = the robust deviation of x over the round's clients, from those above the median
    X_k  = sum_t w_t x_k(t) / sum_t w_t^2       1 is usual, -1 turned around, 0 nothing
    o_k  = sqrt(sum_t w_t^2 s_t^2) / sum_t w_t^2        its deviation by chance
    h    = the robust deviation of X over the round's clients, from those below the median
    p_k  = 1 / max(o_k, h, apart)^2             how far X can be relied on

A round that shows little weighs little: a matched filter (North 1943). Chance is measured above the
median, because attackers lie below it. How much honest clients differ in earnest is measured below
the median, where attackers widen it: that only makes the kind of evidence weigh less beside others,
and what sets few honest clients far apart from the rest, as angles do where clients hold one class
of two, weighs less than what does not. What is known of it beforehand is said (`apart`). A kind by
which chance alone could turn a client around (2 < z o_k) is not asked where another is better:
behind DP-SGD it would drown what angles say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

COLUMNS = 3  # numbers kept of a client
FEWEST = 4  # clients: among fewer there is no majority to differ from
_LEAST = 1e-30


@dataclass(frozen=True)
class Evidence:
    """Of one kind, about the clients of a round, in the rows' order."""

    sums: Tensor  # [n, 3] float64: of w x, w^2 s^2 and w^2
    apart: float = 0.0  # honest clients' shares may differ by as much in earnest

    def with_round(self, values: Tensor, said: Tensor, floor: float) -> Evidence:
        """And what a round adds.

        Args:
            values: x `[n]` float64.
            said: `[n]` bool, of whom the round says something.
            floor: s is not taken to be less.
        """
        if int(said.sum()) < FEWEST:
            return self
        x = values[said]
        weight = x.quantile(0.5).clamp_min(0)
        chance = deviation_above(x, floor)
        squares = torch.stack([(weight * chance).square(), weight.square()])
        sums = self.sums.clone()
        sums[said] += torch.cat([(weight * x)[:, None], squares.expand(len(x), 2)], dim=1)
        return replace(self, sums=sums)

    @property
    def share(self) -> Tensor:
        """The share X `[n]`; 0 of whom nothing is known."""
        return self.sums[:, 0] / self.sums[:, 2].clamp_min(_LEAST)

    @property
    def chance(self) -> Tensor:
        """How far X may be off by chance, o `[n]`; infinite of whom nothing is known."""
        known = self.sums[:, 2] > 0
        deviation = self.sums[:, 1].sqrt() / self.sums[:, 2].clamp_min(_LEAST)
        return torch.where(known, deviation, torch.inf)

    @property
    def reliance(self) -> Tensor:
        """How far X can be relied on, p `[n]`; 0 of whom nothing is known."""
        known = self.sums[:, 2] > 0
        if not known.any():
            return torch.zeros_like(self.share)
        shares = self.share[known]
        differ = deviation_above(-shares, max(self.apart, _LEAST))
        return 1 / torch.maximum(self.chance, differ).square()


def together(kinds: tuple[Evidence, ...], z: float) -> tuple[Tensor, Tensor, Tensor]:
    """All kinds in one: the share, its deviation by chance, and in earnest, `[n]` each.

    M = sum p X / sum p, sqrt(sum p^2 o^2) / sum p and 1 / sqrt(sum p), over the kinds that can tell
    by z deviations; of whom nothing is known 0 and infinities.

    >>> sums = torch.tensor([[2.0, 0.5, 2.0]] * 5).double()
    >>> kinds = Evidence(sums), Evidence(torch.zeros(5, 3).double())
    >>> share, chance, earnest = together(kinds, z=2.0)
    >>> round(float(share[0]), 3), round(float(chance[0]), 3)
    (1.0, 0.354)
    """
    reliance = torch.stack([kind.reliance for kind in kinds])
    each = torch.stack([kind.chance for kind in kinds])
    tells = z * each < 2  # from 1, as usual, to -1, turned around
    reliance = torch.where(tells | ~tells.any(dim=0), reliance, 0.0)
    total = reliance.sum(dim=0)
    known = total > 0
    parts = reliance / total.clamp_min(_LEAST)
    share = (parts * torch.stack([kind.share for kind in kinds])).sum(dim=0)
    chance = torch.where(parts > 0, parts * each, 0.0).square().sum(dim=0).sqrt()
    return (
        share,
        torch.where(known, chance, torch.inf),
        torch.where(known, total.clamp_min(_LEAST).rsqrt(), torch.inf),
    )


def deviation_above(values: Tensor, floor: float) -> Tensor:
    """Robust, from the values at or above the median, and at least `floor`.

    >>> float(deviation_above(torch.tensor([-9.0, 0.0, 1.0]).double(), floor=0.1))
    0.7413
    """
    above = values - values.quantile(0.5)
    return (1.4826 * above[above >= 0].quantile(0.5)).clamp_min(floor)
