"""Draws what is left of a backdoor after its attack has ended: success over the rounds since."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedexp.reporting.comparison import style_of
from fedexp.reporting.figures import new_figure, tidy
from fedexp.reporting.lifespan_table import lifespans
from fedexp.reporting.tables import ABSENT, Configuration, short_names

_ACROSS = 3  # panels in a row
_MOST_LINES = 24  # of a panel: more could not be told apart


def lifespan_figure(groups: Sequence[Configuration], subtitle: str = "") -> Figure:
    """A panel an attack, a line for all else that differs; of groups that have `lifespans`."""
    panels: dict[str, dict[str, pd.Series[float]]] = defaultdict(dict)
    for place, curves in lifespans(groups).items():
        attack, others = _names(groups[place])
        panels[attack][others] = curves.mean(axis=1)
    across = min(_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = new_figure(
        3.2 * across + 2.2,
        2.6 * down + 0.3,
        "What is left of a backdoor after its attack has ended",
        f"Success: images answered as the adversary wants, mean over the seeds. {subtitle}",
    )
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    drawn = {}
    for panel, (attack, lines) in zip(axes, panels.items(), strict=False):
        tidy(panel, grid="both").set_title(attack, loc="left", fontsize=10)
        for index, label in enumerate(labels[:_MOST_LINES]):
            if label in lines:
                colour, dashes, marker = style_of(index)
                (drawn[label],) = panel.plot(
                    lines[label].index,
                    lines[label],
                    color=colour,
                    linestyle=dashes,
                    marker=marker,
                    markersize=4.0,
                )
        panel.set_ylim(-0.03, 1.03)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    figure.legend(list(drawn.values()), list(drawn), loc="outside right center", fontsize=8.5)
    figure.supxlabel("Rounds after the attack's last", fontsize=10)
    figure.supylabel("Success", fontsize=10)
    return figure


def _names(group: Configuration) -> tuple[str, str]:
    """What the group is called among attacks, and among all else."""
    names = short_names(group.settings)
    settings = {key: value for key, value in group.settings.items() if value != ABSENT}
    of_attacks = [key for key in settings if key == "attack" or key.startswith("attack.")]
    others = [key for key in settings if key not in of_attacks]

    def words(keys: Sequence[str]) -> str:
        if len(keys) == 1:
            return str(settings[keys[0]])
        return ", ".join(f"{names[key]}={settings[key]}" for key in keys)

    return words(of_attacks), words(others) or "all runs"
