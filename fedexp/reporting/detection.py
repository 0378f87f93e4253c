"""What a detector's scan of a folder found: a table to read, scores.csv and histogram.png."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.core.files import write_atomically
from fedexp.reporting.area import area_under_curve
from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    VERMILLION,
    legend_below,
    new_figure,
    save,
    tidy,
)

SHOWN_ROWS = 20
_LONGEST_NAME = 48
_MOST_BINS = 50
_LOG_FROM = 50  # times the smallest score that the largest one is


@final
@dataclass(frozen=True)
class Scored:
    """One update file and what the detector thinks of it.

    Attributes:
        file: its name below the folder scanned.
        round: the round it belongs to; None if unknown.
        client: who sent it; None if unknown.
        malicious: the truth; None if unknown.
        score: larger is more suspicious; NaN for no opinion.
        flagged: whether the score is above the threshold.
    """

    file: str
    round: int | None
    client: int | None
    malicious: bool | None
    score: float
    flagged: bool


def write_scan(
    scored: Sequence[Scored],
    unusable: Sequence[tuple[str, str]],
    threshold: float,
    folder: Path,
    subtitle: str,
) -> str:
    """Write scores.csv and histogram.png into `folder`; return the table and figures as text.

    Args:
        scored: at least one update.
        unusable: (file, reason) of the files without a score; scores.csv lists them too.
        threshold: scores above it are flagged.
        folder: made if it is not there.
        subtitle: of the picture: which detector, which files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = scan_table(scored)
    problems = pd.DataFrame(unusable, columns=["file", "problem"])
    everything = pd.concat([table.assign(problem=""), problems]) if len(problems) else table
    text = everything.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    write_atomically(folder / "scores.csv", text.encode())
    picture = save(scan_figure(table, threshold, subtitle), folder / "histogram.png")
    shown = _shown(table, "all in scores.csv")
    return f"{shown}\n\n{summary(table, threshold)}\nSaved: {folder / 'scores.csv'}, {picture.name}"


def scan_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """A row a file, the most suspicious first; `malicious` only where the truth is known."""
    table = pd.DataFrame([asdict(row) for row in scored])
    table[["round", "client"]] = table[["round", "client"]].astype("Int64")
    table = table[["file", "round", "client", "score", "flagged", "malicious"]]
    table["malicious"] = table["malicious"].astype("boolean")
    table = table.sort_values("score", ascending=False, kind="stable", na_position="last")
    return table if table["malicious"].notna().any() else table.drop(columns="malicious")


def summary(table: pd.DataFrame, threshold: float) -> str:
    """How many were flagged; and, where the truth is known, how well that fits it."""
    flagged, n = int(table["flagged"].sum()), len(table)
    lines = [f"{flagged} of {n} updates lie above the threshold {threshold:.4g}."]
    if silent := int(table["score"].isna().sum()):
        lines.append(f"The detector has no opinion on {silent}.")
    if "malicious" in table:
        known = table[table["malicious"].notna()]
        bad = known["malicious"].to_numpy(dtype=bool)
        hit = known["flagged"].to_numpy(dtype=bool)
        text = f"Of {bad.sum()} malicious, {(bad & hit).sum()} caught, {(bad & ~hit).sum()} missed"
        honest = int((~bad).sum())
        alarms = int((~bad & hit).sum())
        share = f" ({alarms / honest:.1%})" if honest else ""
        text += f"; of {honest} honest, {alarms} false alarms{share}"
        curve = area_under_curve(bad, known["score"].to_numpy(dtype=np.float64))
        lines.append(text + ("." if math.isnan(curve) else f"; AUC {curve:.3f}."))
    return "\n".join(lines)


def scan_figure(table: pd.DataFrame, threshold: float, subtitle: str) -> Figure:
    """How the scores are spread, on both sides of the threshold."""
    scores = table["score"].to_numpy(dtype=np.float64)
    drawn = np.isfinite(scores)
    values = scores[drawn]
    if missing := int((~drawn).sum()):
        subtitle += f"; {missing:,} without a finite score are not drawn"
    figure = new_figure(
        8,
        3.6,
        f"Scores of {len(scores):,} updates: {int(table['flagged'].sum()):,} above the threshold",
        subtitle,
    )
    axes = tidy(figure.subplots(), grid="y")
    edges, is_log = _bins(values, threshold)
    if "malicious" in table:
        truth = table["malicious"].to_numpy(dtype=object)[drawn]
        kinds = [
            ("honest", BLUE, "", np.array([t is False for t in truth])),
            ("malicious", VERMILLION, "////", np.array([t is True for t in truth])),
            ("unknown", "0.75", "..", np.array([t is pd.NA for t in truth])),
        ]
    else:
        kinds = [("updates", BLUE, "", np.ones(len(values), dtype=bool))]
    below = np.zeros(len(edges) - 1)
    for name, colour, hatch, chosen in kinds:
        counts = np.histogram(values[chosen.astype(bool)], edges)[0]
        if not counts.any():
            continue
        axes.bar(
            edges[:-1],
            counts,
            np.diff(edges),
            bottom=below,
            align="edge",
            color=colour,
            edgecolor="white",
            linewidth=0.5,
            hatch=hatch,
            label=f"{name} ({int(counts.sum()):,})",
        )
        below += counts
    axes.set_ylim(0, 1.08 * max(1, below.max()))
    label = f"threshold {threshold:.4g}"
    axes.axvline(threshold, color=BLACK, linestyle="--", linewidth=1.5, label=label)
    if is_log:
        axes.set_xscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    scale = " (logarithmic)" if is_log else ""
    axes.set_xlabel(f"Score{scale}: larger is more suspicious")
    axes.set_ylabel("Updates")
    legend_below(figure, axes)
    return figure


def _bins(values: np.ndarray, threshold: float) -> tuple[np.ndarray, bool]:
    """Edges over all scores, one of them the threshold; and whether they are spaced by factors."""
    both = np.append(values, threshold)
    low, high = float(both.min()), float(both.max())
    n_bins = int(np.clip(2 * math.sqrt(len(both)), 10, _MOST_BINS))
    is_log = low > 0 and high / low > _LOG_FROM
    if is_log:
        both, threshold = np.log(both), math.log(threshold)
    # A bar across the threshold would not say on which side its updates lie.
    width = float(np.ptp(both)) / n_bins or 0.1 * abs(threshold) or 0.1
    first = math.floor((both.min() - threshold) / width) - 1
    last = math.ceil((both.max() - threshold) / width) + 1
    edges = threshold + width * np.arange(first, last + 1)
    return (np.exp(edges) if is_log else edges), is_log


def _shown(table: pd.DataFrame, where: str) -> str:
    """The most suspicious rows as text."""
    top = table.head(SHOWN_ROWS)
    columns = {
        "score": [f"{score:.4g}" for score in top["score"]],
        "flagged": ["yes" if flagged else "" for flagged in top["flagged"]],
        "truth": [_truth(value) for value in top.get("malicious", [])],
        "round": ["" if pd.isna(r) else str(r) for r in top["round"]],
        "client": ["" if pd.isna(c) else str(c) for c in top["client"]],
        "file": [_tail(name) for name in top["file"]],
    }
    filled = pd.DataFrame({name: cells for name, cells in columns.items() if any(cells)})
    width = max(map(len, columns["file"]))
    text = filled.to_string(index=False, formatters={"file": lambda name: f"{name:<{width}}"})
    text = "\n".join(line.rstrip() for line in text.splitlines())
    rest = len(table) - len(top)
    return f"{text}\n... and {rest} with lower scores, {where}" if rest else text


def _truth(malicious: object) -> str:
    return "" if malicious is pd.NA else "malicious" if malicious else "honest"


def _tail(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
