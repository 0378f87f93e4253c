"""One aggregation before the run: a precondition that cannot hold fails before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedexp.config.parts import prefixed
from fedexp.core.capabilities import ChecksTheCohort, of_head
from fedexp.core.checks import InputError, of_its_own
from fedexp.core.protection import Combination
from fedexp.core.protocols import Aggregator, PreAggregator
from fedexp.core.rng import generator
from fedexp.core.text import called
from fedexp.core.types import Updates
from fedexp.core.untouched import seen
from fedexp.federation.form import IN_PLACE, no_mixture, no_step


def rehearse_cohort(parts: Combination, aggregator: Aggregator, sizes: Sequence[int] = ()) -> None:
    """Aggregate a cohort of zero rows; InputError, under its key, where a part cannot.

    `sizes` are the clients'; they count where all of them make a cohort.
    """
    n = parts.channel.rows(parts.cohort_size)
    if type(n) is not int or n < 0:
        reason = f"must say how many rows arrive of {parts.cohort_size} clients, and says {n!r}"
        raise InputError(reason, "channel", called(parts.channel))
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
            rows = _mixed(mix, rows, rng, name)
    rule = of_head(aggregator, slice(0, 1))
    shape = parts.setting.init(torch.zeros(1), parts.n_clients).shape  # what the step is added to
    before = seen(rows.matrix, rows.num_examples)
    with prefixed("aggregator"):
        try:
            wrong, cause = no_step(rule(rows, rule.init(1), rng), shape, rows.matrix), None
        except InputError:
            raise
        except Exception as error:  # of a rule of somebody's own
            wrong, cause = f"cannot aggregate {n} rows: {of_its_own(error)}", error
    if not wrong and seen(rows.matrix, rows.num_examples) != before:
        wrong = IN_PLACE
    if wrong:
        raise InputError(wrong, "aggregator", called(aggregator)) from cause


def _mixed(mix: PreAggregator, rows: Updates, rng: np.random.Generator, name: str) -> Updates:
    """What a mixer makes of the rows; InputError where that is no rows."""
    before, cause = seen(rows.matrix, rows.num_examples), None
    made: object = None
    try:
        made = mix(rows, rng)
        wrong = no_mixture(made, rows)
    except InputError:
        raise
    except Exception as error:  # of a mixer of somebody's own
        wrong, cause = f"must return updates of {len(rows)} rows: {of_its_own(error)}", error
    if not wrong and seen(rows.matrix, rows.num_examples) != before:
        wrong = IN_PLACE
    if wrong or not isinstance(made, Updates):
        raise InputError(wrong, f"pre_aggregation.{name}", called(mix)) from cause
    return made
