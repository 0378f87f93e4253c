"""From outcomes to rows, and to the table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from peers.contestants import NO_PEERS
from peers.measure import Outcome

Row = dict[str, object]
GUESSING = 0.2  # twice what guessing one of ten classes gets right


def rows_of(outcomes: Mapping[str, Sequence[Outcome]]) -> list[Row]:
    """One row a contestant of a workload: medians over all counted rounds, and over processes.

    `beside best peer` is how many times fewer seconds a round took than the fastest peer's (1: the
    fastest peer itself); repetitions are compared one by one, as they stood side by side.
    """
    medians = {
        who: [statistics.median(o.counted) for o in runs]
        for who, runs in outcomes.items()
        if all(o.failure is None and o.counted for o in runs)
    }
    peers = {who: statistics.median(m) for who, m in medians.items() if who not in NO_PEERS}
    best = min(peers, key=peers.__getitem__) if peers else None
    rows = []
    for who, runs in outcomes.items():
        row: Row = {"who": who}
        if who not in medians:
            row["failure"] = next((o.failure for o in runs if o.failure), "no counted round")
            rows.append(row)
            continue
        seconds = [s for o in runs for s in o.counted]
        megabytes = [o.megabytes for o in runs if o.megabytes is not None]
        row |= {
            "round_s": statistics.median(seconds),
            "round_s_min": min(seconds),
            "round_s_max": max(seconds),
            "process_s": statistics.median(o.process for o in runs),
            "process_s_min": min(o.process for o in runs),
            "process_s_max": max(o.process for o in runs),
            "peak_mb": max(megabytes, default=None),
            "accuracy": statistics.median(o.accuracy or 0.0 for o in runs),
        }
        if best is not None:
            ratios = [b / a for a, b in zip(medians[who], medians[best], strict=True)]
            row |= {
                "beside_best_peer": statistics.median(ratios),
                "beside_best_peer_min": min(ratios),
                "beside_best_peer_max": max(ratios),
            }
        rows.append(row)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown: median, range in brackets."""
    titles = ("", "s a round", "times the best peer", "process s", "peak MB", "accuracy")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        if "failure" in row:
            lines.append(f"| {row['who']} | failed: {row['failure']} | | | | |")
            continue
        learnt = "" if _number(row["accuracy"]) > GUESSING else " (has not learnt)"
        cells = (
            row["who"],
            _span(row, "round_s"),
            _span(row, "beside_best_peer") if "beside_best_peer" in row else "",
            _span(row, "process_s"),
            "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}",
            f"{row['accuracy']:.2f}{learnt}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _span(row: Row, key: str) -> str:
    low, middle, high = (_number(row[key + end]) for end in ("_min", "", "_max"))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value
