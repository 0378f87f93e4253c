"""What the studies of leakage of a run found, in words and as tables.

A cell is a mean over targets with its 95 % interval, or a single value, if need be with
the interval of what chance gives ("null"). Where a study gives an interval of its own, that counts.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fedexp.reporting.results import Run
from fedexp.reporting.tables import to_markdown
from fedexp.run_folder.findings import StudyRecord

AT_ROUND = "_at_round_"
"""Stands in a headline between a metric and its round where there are several."""

_ATTACKED = ("reconstruction", "inversion")  # subjects that an attack recovered
_NAMES = {
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "mse": "MSE",
    "auc": "AUC",
    "tpr_at_1_percent_fpr": "TPR at 1 % FPR",
    "tpr_at_0.1_percent_fpr": "TPR at 0.1 % FPR",
    "best_baseline_psnr_db": "best baseline's PSNR (dB)",
    "ssim_to_class_mean": "SSIM to class mean",
    "max_ssim_trained_on": "max SSIM trained on",
    "max_ssim_held_out": "max SSIM held out",
}
_NULL = ("_null_low", "_null_high")
_OWN = ("_low", "_high")  # of a single value, given by the study
# All pictures of a class are compared with the same images: resampling them would make too little
# of what chance does.
_NOT_RESAMPLED = ("memorisation_gap",)


def leakage_report(run: Run) -> tuple[str, str]:
    """All studies of a run, for the page and for a terminal; empty where there was none."""
    return studies_report(run.leakage)


def studies_report(studies: Sequence[StudyRecord]) -> tuple[str, str]:
    """Studies of a run or of a file, for the page and for a terminal."""
    pages, lines = [], []
    for study in studies:
        table = figure_table(study)
        page = [
            f"### {study.name}",
            study.adversary,
            _about(study),
            to_markdown(table) if len(table) else "",
        ]
        page.append("\n".join(f"- {sentence}" for sentence in study.conclusions))
        pages.append("\n\n".join(filter(None, page)))
        lines += [
            f"Leakage, {study.name}. {_about(study)}",
            *textwrap.wrap(study.adversary, 100, initial_indent="  ", subsequent_indent="  "),
            *([] if table.empty else [textwrap.indent(table.to_string(index=False), "  ")]),
            *itertools.chain.from_iterable(
                textwrap.wrap(sentence, 100, initial_indent="  - ", subsequent_indent="    ")
                for sentence in study.conclusions
            ),
            "",
        ]
    return "\n\n".join(pages), "\n".join(lines).rstrip("\n")


def figure_table(study: StudyRecord) -> pd.DataFrame:
    """The figures as text: a row for each subject at each round, a column for each metric.

    What was recovered comes first, then what it is compared with, an untrained model last.
    """
    figures = pd.DataFrame(study.figures)
    metrics = [str(m) for m in figures["metric"].unique() if not str(m).endswith(_OWN)]
    subjects = {
        (str(subject), int(round)): own[own["round"] == round]
        for subject, own in figures.groupby("subject")
        for round in own["round"].unique()
    }
    appeared = {subject: place for place, subject in enumerate(figures["subject"].unique())}
    last = max((round for _, round in subjects), default=0)
    rows = []
    for subject, round in sorted(
        subjects,
        key=lambda at: ("untrained" in at[0], at[1], not is_attacked(at[0]), appeared[at[0]]),
    ):
        values = {
            str(metric): column.to_numpy()
            for metric, column in subjects[subject, round].groupby("metric")["value"]
        }
        known = _known_intervals(study, round, last) if is_attacked(subject) else {}
        row = {"subject": subject, "round": str(round), "n": str(max(map(len, values.values())))}
        rows.append(row | {metric_name(m): _cell(m, values, known.get(m)) for m in metrics})
    table = pd.DataFrame(rows, columns=["subject", "round", "n", *map(metric_name, metrics)])
    return table.drop(columns=[name for name in ("round", "n") if table[name].nunique() < 2])


def metric_name(metric: str) -> str:
    """A metric for a reader, with its unit.

    >>> metric_name("psnr_db"), metric_name("psnr_db_at_round_5"), metric_name("memorisation_gap")
    ('PSNR (dB)', 'PSNR (dB), round 5', 'memorisation gap')
    """
    base, _, round = metric.partition(AT_ROUND)
    return _NAMES.get(base, base.replace("_", " ")) + (f", round {round}" if round else "")


def number(metric: str, value: float) -> str:
    """A value to three digits, and no more than four decimals unless it is an error.

    >>> number("psnr_db", 37.5741), number("ssim", -0.00012), number("mse", 0.00012)
    ('37.6', '-0.0001', '0.00012')
    """
    return f"{value if metric.startswith('mse') else round(value, 4) + 0.0:.3g}"


def decimals(metric: str) -> str:
    """How values of a metric are formatted where they stand under each other.

    >>> format(37.5741, decimals("psnr_db_at_round_5")), format(0.949, decimals("ssim"))
    ('37.6', '0.949')
    """
    return {"psnr_db": ".1f", "best_baseline_psnr_db": ".1f", "mse": ".2g"}.get(
        metric.partition(AT_ROUND)[0], ".3f"
    )


def is_attacked(subject: str) -> bool:
    """Whether figures are of what an attack recovered, rather than of what it is compared with."""
    return subject in _ATTACKED


def _about(study: StudyRecord) -> str:
    figures = study.figures
    rounds = sorted(set(figures["round"]))
    named = ", ".join(map(str, rounds)) or "none"
    n = max(figures["target"], default=-1) + 1
    over = f" Mean [95 % interval] over {n:,} targets." if n > 1 else ""
    what = f"{study.study}, round{'s' * (len(rounds) > 1)} {named}, {study.seconds:.1f} s."
    return what + over


def _known_intervals(
    study: StudyRecord, round: int, last: int
) -> dict[str, tuple[float, float, float]]:
    """The means and intervals that the study itself gives of what it recovered at a round."""
    found = {}
    for metric, mean in study.headline.items():
        base, mark, at = metric.partition(AT_ROUND)
        low, high = (study.headline.get(f"{base}{end}{mark}{at}") for end in ("_low", "_high"))
        if int(at or last) == round and low is not None and high is not None:
            found[base] = (mean, low, high)
    return found


def _cell(
    metric: str,
    values: Mapping[str, np.ndarray],
    known: tuple[float, float, float] | None,
) -> str:
    if metric not in values:
        return ""
    mean, low, high = known or mean_interval_of(values[metric])
    if len(values[metric]) == 1 and all(metric + end in values for end in _OWN):
        low, high = (float(values[metric + end][0]) for end in _OWN)
    if not math.isnan(low) and (known or metric not in _NOT_RESAMPLED):
        mean_text = f"{number(metric, mean)} [{number(metric, low)}, {number(metric, high)}]"
    else:
        mean_text = number(metric, mean)
    ends = [float(values[metric + end][0]) for end in _NULL if metric + end in values]
    chance = f" (null {' to '.join(number(metric, end) for end in ends)})" if ends else ""
    return "-" if math.isnan(mean) else f"{mean_text}{chance}"


def mean_interval_of(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of the finite values; NaN where there is none."""
    # torch comes with them, for which a report without a study need not wait.
    from fedexp.core.rng import generator
    from fedexp.leakage.intervals import mean_interval

    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan, math.nan
    return mean_interval(known, generator(0, "report_intervals"))
