"""Every site's accuracy on its own patients, and what it gains over training alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fedexp.reporting.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    name_rows,
    new_figure,
    tidy,
)
from fedexp.reporting.verdict import ROLES, Site, sites_of

_STYLE = {
    "alone": (GREY, "s"),
    "federated": (BLUE, "o"),
    "pooled": (GREEN, "^"),
    "fine-tuned": (ORANGE, "D"),
}
_OUTCOME = {"gains": (BLUE, "o"), "is harmed": (VERMILLION, "X"), "cannot be told": (GREY, "d")}
MOST_SITES = 30


def verdict_figure(verdict: Mapping[str, Any]) -> Figure | None:
    """Two panels: the accuracy of each way to train, and the gain. None above `MOST_SITES`."""
    sites = sites_of(verdict)
    if not 0 < len(sites) <= MOST_SITES:
        return None
    whose = "own patients" if verdict["patients"] == "own" else "patients in its own mix (estimate)"
    figure = new_figure(
        11.0,
        1.3 + 0.55 * len(sites),
        "What federation is worth to every site",
        f"Test accuracy on each site's {whose}; bars: 95 % intervals",
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    tidy(left, grid="x"), tidy(right, grid="x")
    roles = [role for role in ROLES if any(site.interval(role, "accuracy") for site in sites)]
    for place, role in zip(np.linspace(-0.27, 0.27, max(len(roles), 1)), roles, strict=False):
        colour, marker = _STYLE[role]
        for k, site in enumerate(sites):
            interval = site.interval(role, "accuracy")
            if interval is None or interval[0] is None:
                continue
            value, low, high = (100 * (x if x is not None else interval[0]) for x in interval)
            left.plot([low, high], [k + place] * 2, color=colour, linewidth=1.6)
            label = role if k == 0 else None
            left.plot(value, k + place, marker, color=colour, markersize=5.5, label=label)
    left.set_xlabel("Right answers (%)")
    name_rows(left, [site.name for site in sites])
    left.set_ylim(len(sites) - 0.5, -0.5)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=4, frameon=False)
    for k, site in enumerate(sites):
        _gain(right, site, k)
    right.axvline(0, color=BLACK, linewidth=1)
    right.set_xlabel("Gain over training alone (percentage points)")
    return figure


def _gain(axes: Any, site: Site, row: int) -> None:
    if site.gain is None or site.gain[0] is None:
        return
    colour, marker = _OUTCOME[site.outcome]
    value, low, high = (100 * (x if x is not None else site.gain[0]) for x in site.gain)
    axes.plot([low, high], [row] * 2, color=colour, linewidth=2)
    axes.plot(value, row, marker, color=colour, markersize=8)
    words = {"cannot be told": "", "gains": "gains", "is harmed": "harmed"}[site.outcome]
    axes.annotate(
        words,
        (value, row),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        color=colour,
        fontsize=9,
    )
