"""Who can tell members from others, adversary by adversary: one table of all studies of a run.

A row is an attack by a named adversary. "chance" is what the same scores give when who is a member
is shuffled. In a sweep the cells are means over the seeds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedexp.reporting.leakage import metric_name
from fedexp.reporting.results import Run
from fedexp.reporting.tables import ABSENT, Configuration, short_names
from fedexp.run_folder.findings import StudyRecord

_METRICS = ("auc", "tpr_at_1_percent_fpr", "tpr_at_0.1_percent_fpr")
MEMBERSHIP_ATTACK = "membership attack"
_BY_CLASS = ", by class"  # as `fedexp.leakage.membership.judged` ends a subject


def membership_table(run: Run) -> pd.DataFrame:
    """The attacks on membership of a run as text, empty where there was none.

    Columns: adversary, attack, AUC with its interval and that of chance, the rates at low FPR, the
    AUC with every class counting the same, and the seconds of the whole study.
    """
    rows = []
    attacks = _attacks(run)
    times = Counter(subject for _, subject, _ in attacks)
    for study, subject, values in attacks:
        row = {
            "adversary": study.adversary_of(subject) or "not named",
            "attack": subject if times[subject] == 1 else f"{study.name}: {subject}",
        }
        row |= {metric_name(metric): _cell(metric, values) for metric in _METRICS}
        balanced = values.get("class_balanced", math.nan)
        row["class-balanced AUC"] = "-" if math.isnan(balanced) else f"{balanced:.3f}"
        rows.append(row | {"study's seconds": f"{study.seconds:.1f}"})
    return pd.DataFrame(rows)


def membership_sweep(groups: Sequence[Configuration]) -> pd.DataFrame:
    """The same of a sweep: a row for each setting and attack, mean ± deviation over the seeds.

    Columns: the settings that differ (the run's own `attack` may be one of them), adversary,
    membership attack, runs, AUC, the rates at low FPR, the class-balanced AUC, and how often the
    AUC lies inside the interval of chance; empty where no run was asked.
    """
    rows = []
    for group in groups:
        names = short_names(group.settings)
        chosen = {names[k]: v for k, v in group.settings.items() if v != ABSENT}
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for run in group.complete:
            for study, subject, values in _attacks(run):
                key = (study.adversary_of(subject), f"{study.name}: {subject}")
                found.setdefault(key, []).append(values)
        for (adversary, attack), runs in found.items():
            row = {**chosen, "adversary": adversary, MEMBERSHIP_ATTACK: attack}
            row["runs"] = str(len(runs))
            for metric in (*_METRICS, "class_balanced"):
                name = "class-balanced AUC" if metric == "class_balanced" else metric_name(metric)
                row[name] = _spread([values.get(metric, math.nan) for values in runs])
            inside = sum(map(_inside_chance, runs))
            row["AUC inside chance"] = f"{inside} of {len(runs)}"
            rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def _attacks(run: Run) -> list[tuple[StudyRecord, str, dict[str, float]]]:
    """Study, subject and figures of the attacks on membership, of each the latest round."""
    found = []
    for study in run.leakage:
        figures = pd.DataFrame(study.figures)
        if not {"auc", "auc_null_high"} <= set(figures["metric"]):
            continue
        for subject, own in figures.groupby("subject", sort=False):
            values = own[own["round"] == own["round"].max()].set_index("metric")["value"]
            if "auc_null_high" not in values.index:
                continue
            of_classes = figures[
                (figures["subject"] == f"{subject}{_BY_CLASS}") & (figures["metric"] == "auc")
            ]
            known = {str(metric): float(value) for metric, value in values.items()}
            # Of one class alone it is no mean over classes.
            several = len(of_classes) > 1
            known["class_balanced"] = float(of_classes["value"].mean()) if several else math.nan
            found.append((study, str(subject), known))
    return found


def _cell(metric: str, values: Mapping[str, float]) -> str:
    """Value, interval and that of chance; a rate in per cent, and where chance ends."""
    if math.isnan(values.get(metric, math.nan)):
        return "too few non-members"
    factor, places, unit = (1, 3, "") if metric == "auc" else (100, 2, " %")
    ends = ("", "_low", "_high", "_null_low", "_null_high")
    value, low, high, least, most = (
        f"{factor * values.get(metric + end, math.nan):.{places}f}" for end in ends
    )
    chance = f"{least} to {most}" if metric == "auc" else f"to {most}"
    return f"{value}{unit} [{low}, {high}], chance {chance}"


def _spread(values: Sequence[float]) -> str:
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return "-"
    deviation = f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else ""
    return f"{known.mean():.3f}{deviation}"


def _inside_chance(values: dict[str, float]) -> bool:
    return values["auc_null_low"] <= values["auc"] <= values["auc_null_high"]
