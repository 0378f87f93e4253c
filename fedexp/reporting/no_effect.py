"""What was swept and made no difference: runs that differ in one key alone and measured the same.

A sweep over the strength of an attack that nobody carries out, or over a key that changes no
result, looks like a table of robust figures. Equal to the last digit in every recorded number is
not robustness, and is said.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fedexp.core.documents import TABLE_BYTES, read_regular
from fedexp.reporting.results import Run


def no_effect(runs: Sequence[Run]) -> list[str]:
    """A sentence for each key that was swept without effect, in the order of the overrides."""
    complete = [run for run in runs if run.status == "complete"]
    asked = [_asked(run) for run in complete]
    keys = dict.fromkeys(key for values in asked for key in values)
    swept = [key for key in keys if len({values.get(key) for values in asked}) > 1]
    digests = [_measured(run) for run in complete]
    found = []
    for key in swept:
        alike: dict[tuple[object, ...], set[str]] = defaultdict(set)
        members: dict[tuple[object, ...], int] = defaultdict(int)
        for values, digest in zip(asked, digests, strict=True):
            others = tuple((k, v) for k, v in sorted(values.items()) if k != key)
            alike[others].add(digest)
            members[others] += 1
        compared = [others for others, count in members.items() if count > 1]
        if compared and all(len(alike[others]) == 1 for others in compared):
            seen = sorted({str(values.get(key)) for values in asked})
            found.append(
                f"{key} had no effect: runs that differ in it alone ({', '.join(seen)}) measured "
                "the same to the last digit"
            )
    return found


def _asked(run: Run) -> Mapping[str, str]:
    """What the command line or the sweep set for a run, by key."""
    pairs = (str(o).partition("=") for o in run.config.get("overrides") or [])
    return {key.lstrip("+~"): value for key, _, value in pairs}


def _measured(run: Run) -> str:
    """A digest of every number that the run recorded."""
    digest = hashlib.sha256(read_regular(run.path / "metrics.csv", TABLE_BYTES))
    if (clients := run.path / "clients.bin").exists():
        digest.update(read_regular(clients, TABLE_BYTES))
    return digest.hexdigest()
