"""Server rules on a float32 matrix of 50 updates of W2's model, beside their plain torch forms."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.timing import Contestant, interleaved
from fedexp.aggregation.geometric_median import weiszfeld_weights
from fedexp.aggregation.order_statistics import mean_of_sorted
from fedexp.core.geometry import centred_gram, squared_distances

Rule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contest:
    """One rule three times: ours, the straightforward torch formulation, and the most literal."""

    ours: Rule
    naive: Rule
    exact: Rule  # for float64 rows


def contests(n: int) -> dict[str, Contest]:
    """By name, for n rows of which a fifth may lie."""
    f = n // 5
    uniform = torch.full((n,), 1 / n)
    middle = ((n - 1) // 2, n // 2 + 1)
    weights = torch.ones(n, dtype=torch.float64)

    def geometric_median(x: Tensor) -> Tensor:
        share = weiszfeld_weights(centred_gram(x), weights.to(x.device), 1e-6, 10, 1e-6)
        return share.to(x) @ x

    return {
        "mean": Contest(
            ours=lambda x: uniform.to(x.device) @ x,
            naive=lambda x: (uniform[:, None] * x).sum(dim=0),
            exact=lambda x: x.mean(dim=0),
        ),
        "median": Contest(
            ours=lambda x: mean_of_sorted(x, *middle),
            naive=lambda x: x.median(dim=0).values,  # the lower of the two middle values
            exact=lambda x: x.sort(dim=0).values[slice(*middle)].mean(dim=0),
        ),
        "trimmed mean": Contest(
            ours=lambda x: mean_of_sorted(x, f, n - f),
            naive=lambda x: x.sort(dim=0).values[f : n - f].mean(dim=0),
            exact=lambda x: x.sort(dim=0).values[f : n - f].mean(dim=0),
        ),
        "distances": Contest(
            ours=lambda x: squared_distances(x).sqrt(),
            naive=lambda x: torch.cdist(x, x).double(),
            exact=lambda x: torch.stack([(x - row).norm(dim=1) for row in x]),
        ),
        "geometric median": Contest(
            ours=geometric_median,
            naive=lambda x: weiszfeld_on_rows(x, 10),
            exact=lambda x: weiszfeld_on_rows(x, 10),
        ),
    }


def weiszfeld_on_rows(matrix: Tensor, steps: int) -> Tensor:
    """The geometric median, every step on the rows."""
    point = matrix.mean(dim=0)
    for _ in range(steps):
        weights = 1 / (matrix - point).norm(dim=1).clamp_min(1e-6)
        point = (weights / weights.sum()) @ matrix
    return point


def rule_rows(runs: int, quick: bool, names: Sequence[str]) -> list[dict[str, object]]:
    """Server rules on one thread, and what of the memory bandwidth they reach.

    A rule reads the matrix at least once: `gigabytes_per_second` counts it once, whatever the rule
    does, and `share_of_bandwidth` is that beside a sum over the matrix.
    """
    n, d = 50, 1_663_370 // (10 if quick else 1)
    matrix = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    read = interleaved(runs, {"read": Contestant(matrix.sum, 1)})["read"]
    rows = []
    for name, contest in contests(n).items():
        if names and name not in names:
            continue
        # Against the same rule in float64: the naive float32 forms have errors of their own.
        few = matrix[:, :20_000]
        answer, exact = contest.ours(few).double(), contest.exact(few.double())
        error = float((answer - exact).abs().max() / exact.abs().max())
        timed = interleaved(
            runs,
            {
                "ours": Contestant(lambda rule=contest.ours: rule(matrix), 1),  # type: ignore[misc]
                "naive": Contestant(lambda rule=contest.naive: rule(matrix), 1),  # type: ignore[misc]
            },
        )
        ours, naive = timed["ours"], timed["naive"]
        ratios = ours.times_faster_than(naive)
        rows.append(
            {
                "case": f"{name} [{n}, {d}]",
                "who": "fedexp",
                **ours.row(),
                "naive": naive.median,
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "times_reading": ours.median / read.median,
                "gigabytes_per_second": matrix.nbytes / ours.median / 1e9,
                "share_of_bandwidth": read.median / ours.median,
                "largest_difference": error,
            }
        )
    return rows
