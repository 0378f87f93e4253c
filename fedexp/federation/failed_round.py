"""Why a round moved nothing, and which part it was: the last words of a run that cannot go on.

The rows of a round go from part to part. Where none is left, the part that took them is named;
where none is finite, the first part that left them so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from fedexp.core.round_record import Cause
from fedexp.core.types import Delivery, Updates
from fedexp.federation.describe import malicious_in
from fedexp.federation.server import Receipt


def cause_of(
    stages: Mapping[str, Updates], malicious: np.ndarray, delivery: Delivery, receipt: Receipt
) -> Cause | None:
    """What became of the rows of a round that moved nothing; None where they came to the rule.

    Args:
        stages: the rows as the part of each group left them, from training on, before they were
            sent.
        malicious: `[n]` bool, who of the cohort lied.
        delivery: what arrived of them.
        receipt: what the server made of it.
    """
    cohort, arrived = len(malicious), len(delivery.updates)
    if not cohort:
        return Cause("sampler", "drew nobody")
    if not arrived:
        return Cause("channel", f"brought none of {cohort} rows")
    if all(receipt.complaints):
        lying = malicious_in(delivery, stages["training"], malicious)
        for group, updates in stages.items():
            # Of a merged cohort, which is one without an adversary, there is a row for several.
            honest = ~malicious if len(updates.matrix) == cohort else slice(None)
            if _all_broken(updates.matrix[honest]):
                return Cause(group, "left no honest client's row finite")
        if _all_broken(delivery.updates.matrix[[not lies for lies in lying]]):
            return Cause("channel", "left no honest client's row finite")
        return Cause("update_validation", f"dropped all {arrived} rows")
    if not bool((receipt.verdict.trust > 0).any()):
        return Cause("detector", f"trusted none of {len(receipt.scored)} rows")
    return None


def _all_broken(rows: Tensor) -> bool:
    return len(rows) > 0 and not bool(rows.flatten(1).isfinite().all(dim=1).any())
