"""RFLBAT: drop what lies far off on the plane of the first two components, keep one cluster of it.

    x_k = coordinates of delta_k on the first principal components of the round's rows
    r_k = sum over j of ||x_k - x_j||;           first: keep r_k <= far (10) * median r
    clusters = k-means of the kept x_k, as many as the gap statistic says
    v_c = median over k in c of the mean over j in c of cos(delta_k, delta_j)
    the cluster with the smallest v_c is kept: who backdoors alike is more alike than honest clients
    r again, within that cluster;                then: keep r_k <= near (4) * median r

Source: Wang, Zhai, Zhan and Xia, "RFLBAT: A Robust Federated Learning Algorithm against Backdoor
Attack", arXiv:2201.03772, 2022, algorithm 1, whose kept rows are averaged (`aggregator=mean`). The
paper leaves open, and this is how it is settled: the gap statistic is that of Tibshirani et al.
(`fedexp.detection.gap_statistic`); a cluster of one row has v = 1, and so is not kept where there
is another, as in the code of 3DFed (Li et al., S&P 2023); a row at the bound is kept, so that rows
which are all the same are. Rows count in full: that code takes some layers of large models.
A row that is too long for its squares to be counted is dropped at once. Breakdown point: none is
proven; with one cluster nothing but rows far off is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, positive
from fedexp.core.columns import added_over_columns
from fedexp.core.norms import (
    cosines,
    gram,
    median,
    mirrored,
    numbers_to_multiply,
    row_norms,
    upper_products,
)
from fedexp.core.stateless import Stateless
from fedexp.core.types import State, Updates, Verdict
from fedexp.detection.acting import check_action, countable, of_marked
from fedexp.detection.gap_statistic import number_of_clusters
from fedexp.detection.k_means import k_means

FEWEST = 4  # rows: among fewer there is no plane that says anything
ROUNDING = 1e-12  # of all squares: what is left of equal rows when their mean is taken away


@final
@dataclass(frozen=True)
class RFLBAT(Stateless):
    """Flags all rows but one cluster; score 1 for those, 0 for the others.

    Args:
        components: of the plane; 2 in the paper.
        far: rows whose distances to the others sum up to more than so many medians are flagged; at
            least 1.
        near: the same again, within the cluster that is kept.
        most_clusters: that the gap statistic may find.
        references: of the gap statistic.
        action: what becomes of a flagged row: "drop" or "report" (nothing).
    """

    components: int
    far: float
    near: float
    most_clusters: int
    references: int
    action: Literal["drop", "report"]

    def __post_init__(self) -> None:
        at_least(1, components=self.components, most_clusters=self.most_clusters)
        at_least(1, references=self.references)
        positive(far=self.far, near=self.near)
        for name, factor in (("far", self.far), ("near", self.near)):
            if factor < 1:  # half of the rows are nearer than the median, and somebody must stay
                raise InputError("must be a number of medians, at least 1", name, factor)
        check_action(self.action)

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Verdict, State]:
        """Who is flagged; no opinion of fewer than four rows."""
        kept = countable(updates.matrix)
        if int(kept.sum()) < FEWEST:
            return Verdict.no_opinion(len(updates)), state
        rows = updates.select(kept).matrix
        kept[kept.clone()] = self._kept(principal(rows, self.components), rows, rng)
        return of_marked(~kept, self.action), state

    def _kept(self, points: Tensor, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """`[n]` bool, of rows at `points` `[n, components]`."""
        kept = _near_the_others(points, self.far)
        x = points[kept].numpy()
        k = number_of_clusters(x, self.most_clusters, self.references, rng)
        labels = torch.from_numpy(k_means(x[None], k, rng)[0][0])
        likeness = cosines(gram(rows)).cpu()[kept][:, kept]
        alike = torch.stack([_alike(likeness, labels == cluster) for cluster in range(k)])
        chosen = labels == int(alike.argmin())
        chosen[chosen.clone()] = _near_the_others(points[kept][chosen], self.near)
        kept[kept.clone()] = chosen
        return kept


def principal(rows: Tensor, components: int) -> Tensor:
    """Coordinates of the rows on their first principal components: `[n, d]` to `[n, p]` float64.

    By the inner products of the centred rows, which are small. On the CPU; each component points
    to where its cubes add up to more than nothing, whatever the order of the rows.
    """

    def products(columns: slice) -> Tensor:
        part = rows[:, columns]
        return upper_products(part - part.mean(dim=0))

    centred = mirrored(added_over_columns(products, rows, numbers_to_multiply(len(rows))).cpu())
    values, vectors = torch.linalg.eigh(centred)
    values = torch.where(values > ROUNDING * float(row_norms(rows).square().sum()), values, 0)
    first = slice(max(0, len(values) - components), None)
    points = (vectors[:, first] * values[first].sqrt()).flip(1)
    signs = points.pow(3).sum(dim=0).sign()
    turned: Tensor = points * torch.where(signs == 0, 1, signs)
    return turned


def _near_the_others(points: Tensor, factor: float) -> Tensor:
    """Whose distances to the others sum up to at most so many medians: `[n, p]` to `[n]` bool."""
    apart = (points[:, None] - points[None, :]).norm(dim=2).sum(dim=1)
    near: Tensor = apart <= factor * median(apart)
    return near


def _alike(likeness: Tensor, members: Tensor) -> Tensor:
    """The v of one cluster: from cosines `[n, n]` and who is in it `[n]` bool."""
    if int(members.sum()) < 2:
        return torch.ones((), dtype=torch.float64)
    return median(likeness[members][:, members].mean(dim=1))
