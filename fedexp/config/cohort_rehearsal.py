"""One aggregation before the run: a precondition that cannot hold fails before training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedexp.config.parts import prefixed
from fedexp.core.capabilities import ChecksTheCohort, of_head
from fedexp.core.checks import InputError
from fedexp.core.protection import Combination
from fedexp.core.protocols import Aggregator
from fedexp.core.rng import generator
from fedexp.core.types import Updates


def rehearse_cohort(parts: Combination, aggregator: Aggregator, sizes: Sequence[int] = ()) -> None:
    """Aggregate a cohort of zero rows; InputError, under its key, where a part cannot.

    `sizes` are the clients'; they count where all of them make a cohort.
    """
    n = parts.channel.rows(parts.cohort_size)
    if n > parts.cohort_size:
        raise InputError(
            f"cannot make {n} sums of {parts.cohort_size} clients", "channel.groups", n
        )
    rows = Updates(
        torch.zeros(n, 1),
        # The last clients: a rule that keeps something of each must have room for them.
        tuple(-1 - r if parts.channel.sums else parts.n_clients - 1 - r for r in range(n)),
        torch.tensor(sizes if len(sizes) == n else [1] * n, dtype=torch.float64),
        reference=torch.zeros(1),
    )
    if isinstance(parts.detector, ChecksTheCohort):
        with prefixed("detector"):
            parts.detector.check_cohort(n)
    rng = generator(0, "rehearsal")
    for name, mix in parts.pre_aggregation.items():
        with prefixed(f"pre_aggregation.{name}"):
            rows = mix(rows, rng)
    rule = of_head(aggregator, slice(0, 1))
    with prefixed("aggregator"):
        rule(rows, rule.init(1), rng)
