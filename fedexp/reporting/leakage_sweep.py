"""What the studies of leakage found in a sweep: tables, settings compared, the noise ladder.

Settings that differ in one key are compared seed by seed, by the mean of the paired differences
and its interval by Student's t,

    mean ± t(0.975, n - 1) s / sqrt(n)

over n seeds, each comparison by itself; below 3 seeds nothing is compared. A setting leaks more
where the interval lies above 0, and not because it was expected to.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from fedexp.reporting.leakage import AT_ROUND, decimals, mean_interval_of, metric_name
from fedexp.reporting.results import Run
from fedexp.reporting.tables import (
    ABSENT,
    Configuration,
    configurations,
    job_names,
    settings_of,
    short_names,
    to_markdown,
    varied_keys,
)
from fedexp.run_folder.findings import StudyRecord

FEWEST_SEEDS = 3  # of a comparison
_MOST_COMPARISONS = 12  # of a sweep, shared by its studies
_FEWEST_COMPARISONS = 4  # of a study, where there are as many
# The larger leaks more. The first two that a study has are what settings are compared by.
_LEAKS_MORE = (
    "identified",
    *("psnr_db", "evaluation_accuracy", "auc", "epsilon_lower_bound"),
    *("labels_recovered", "memorisation_gap", "tpr_at_1_percent_fpr"),
)


def leakage_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a headline figure of a complete run; empty where nothing was studied.

    Columns: job, the settings that differ (seed last), test_accuracy, study, metric, value.
    """
    keys = sorted(varied_keys(runs), key=lambda key: key == "seed")
    return pd.DataFrame(
        {
            "job": name,
            **settings_of(run, keys),
            "test_accuracy": run.final("test", "accuracy"),
            "study": study,
            "metric": metric,
            "value": value,
        }
        for name, run in zip(job_names(runs), runs, strict=True)
        if run.status == "complete"
        for study, headline in _headlines(run).items()
        for metric, value in headline.items()
    )


def leakage_markdown(runs: Sequence[Run]) -> str:
    """For each study a table of the settings, and what the figures say of every two of them."""
    groups = configurations(runs)
    studies = studies_of(runs)
    most = max(_FEWEST_COMPARISONS, _MOST_COMPARISONS // max(1, len(studies)))
    sections = []
    for study in studies:
        table = to_markdown(_study_table(groups, study))
        sentences = "\n".join(f"- {sentence}" for sentence in comparisons(groups, study, most))
        rates = "\n".join(f"- {sentence}" for sentence in _pooled_rates(groups, study))
        sections.append("\n\n".join(filter(None, [f"### {study}", table, rates, sentences])))
    if not sections:
        return ""
    how = (
        "Mean ± standard deviation over the seeds. Settings that differ in one thing are compared "
        "seed by seed; brackets hold 95 % intervals of the mean difference (Student's t), each "
        "comparison by itself. leakage.csv has every run's figures."
    )
    return "\n\n".join([how, *sections])


def comparisons(groups: Sequence[Configuration], study: str, most: int) -> list[str]:
    """A sentence for each two settings that differ in one key only, made from the figures."""
    metrics = compared(by_seed(group, study) for group in groups)
    sentences, too_few = [], 0
    for metric in metrics:
        for a, b in itertools.combinations(groups, 2):
            differing = _one_difference(a, b)
            pairs = _pairs(a, b, study, metric)
            if not differing or pairs.empty:
                continue
            if len(pairs) < FEWEST_SEEDS:
                too_few += 1
                continue
            sentences.append(_comparison(a, b, differing, metric, pairs))
    if (left_out := len(sentences) - most) > 0:
        sentences[most:] = [f"{left_out} more comparisons can be made from leakage.csv."]
    if too_few:
        sentences.append(
            f"Too few seeds: {too_few} comparison(s) of settings with fewer than {FEWEST_SEEDS} "
            "seeds in common are not made."
        )
    return sentences


def _pooled_rates(groups: Sequence[Configuration], study: str) -> list[str]:
    """For settings with several seeds, the rate at the lowest FPR over all their targets."""
    sentences = []
    for group in groups:
        scores = [
            (found.arrays["scores_members"], found.arrays["scores_non_members"])
            for run in group.complete
            for found in run.leakage
            if found.name == study and "scores_non_members" in found.arrays
        ]
        if len(scores) < 2:
            continue
        # Both come with scipy and torch, for which a report without such a study need not wait.
        from fedexp.leakage.membership.roc import RATES, pooled

        roc = pooled(scores)
        metric, rate = min(RATES.items(), key=lambda item: item[1])
        if math.isnan((interval := roc.tpr_interval(rate)).mean):
            continue
        names = short_names(group.settings)
        chosen = {k: v for k, v in group.settings.items() if v != ABSENT}
        setting = ", ".join(f"{names[key]}={value}" for key, value in chosen.items())
        sentences.append(
            f"{metric_name(metric)}, {len(scores)} runs pooled{f', {setting}' if setting else ''}: "
            f"{100 * interval.mean:.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}] "
            f"of {roc.n_members:,} members, behind at most "
            f"{math.floor(rate * roc.n_non_members + 1e-9)} false alarms."
        )
    return sentences


def noise_ladder(runs: Sequence[Run]) -> pd.DataFrame:
    """Images and labels recovered at every noise multiplier, over all targets of all seeds.

    One row a line, noise, subject and metric (psnr_db, or one that starts with "label"), columns
    line, noise, subject, metric, mean, low, high; empty where no line has two noise multipliers. A
    line is all else that differs: the settings, the study, the round. The multiplier is the
    study's own, or the run's where it leaves that alone.
    """
    keys = [key for key in varied_keys(runs) if key != "seed"]
    noises = [key for key in keys if key.split(".")[-1] == "noise_multiplier"]
    of_run = [key for key in noises if not key.startswith("leakage.")]
    names = short_names(keys)
    values: list[pd.DataFrame] = []
    alike: dict[str, list[str]] = {}
    for run in (run for run in runs if run.status == "complete"):
        others = settings_of(run, [key for key in keys if key not in noises])
        beside = ", ".join(f"{names[k]}={v}" for k, v in others.items() if v != ABSENT)
        for study in run.leakage:
            noise = _noise(study, settings_of(run, of_run))
            if math.isnan(noise) or "psnr_db" not in study.figures["metric"]:
                continue
            same = json.dumps([beside, _without_noise(study.settings)], sort_keys=True)
            alike.setdefault(same, []).append(study.name)
            frame = pd.DataFrame(study.figures)
            measured = frame["metric"].str.startswith("label") | (frame["metric"] == "psnr_db")
            values.append(frame[measured].assign(noise=noise, same=same, beside=beside))
    if not values:
        return pd.DataFrame()
    table = pd.concat(values)
    table = table[table.groupby("same")["noise"].transform("nunique") > 1]
    labels = {same: _common_name(studies) for same, studies in alike.items()}
    rounds = table["round"].nunique() > 1
    rows = []
    groups = table.groupby(["same", "beside", "round", "noise", "subject", "metric"], sort=False)
    for (kind, setting, round, *what), own in groups:
        line = [labels[str(kind)], str(setting), f"round {round}" if rounds else ""]
        interval = mean_interval_of(own["value"].to_numpy())
        rows.append((", ".join(filter(None, line)), *what, *interval))
    return pd.DataFrame(
        rows, columns=["line", "noise", "subject", "metric", "mean", "low", "high"]
    ).sort_values("noise", kind="stable", ignore_index=True)


def studies_of(runs: Iterable[Run]) -> list[str]:
    """The names of all studies of some runs, in the order of their first."""
    return list(dict.fromkeys(study for run in runs for study in _headlines(run)))


def _headlines(run: Run) -> dict[str, dict[str, float]]:
    """Study -> metric -> value, from the run's summary."""
    return {
        str(study): {m: math.nan if v is None else float(v) for m, v in (headline or {}).items()}
        for study, headline in (run.summary.get("leakage") or {}).items()
    }


def by_seed(group: Configuration, study: str) -> pd.DataFrame:
    """A row a seed with a complete run that has the study: test accuracy and the headline."""
    rows = [
        {"seed": str(run.seed), "accuracy": run.final("test", "accuracy"), **headlines[study]}
        for run in group.complete
        for headlines in [_headlines(run)]
        if study in headlines
    ]
    # Runs that share a seed are repeats of one experiment, and count as one.
    return pd.DataFrame(rows).groupby("seed").mean() if rows else pd.DataFrame()


def _study_table(groups: Sequence[Configuration], study: str) -> pd.DataFrame:
    tables = [by_seed(group, study) for group in groups]
    metrics = [
        metric
        for metric in dict.fromkeys(str(column) for table in tables for column in table)
        if not metric.startswith("n_") and metric not in ("accuracy", "test_accuracy")
        if not metric.partition(AT_ROUND)[0].endswith(("_low", "_high"))
    ]
    rows = []
    for group, table in zip(groups, tables, strict=True):
        if table.empty:
            continue
        cells = {metric_name(m): of_seeds(m, table[m]) if m in table else "" for m in metrics}
        accuracy = of_seeds("accuracy", table["accuracy"])
        rows.append({**group.settings, "seeds": len(table), "test accuracy": accuracy, **cells})
    shown = pd.DataFrame(rows)
    return shown.drop(columns=[name for name in shown if not shown[name].astype(str).any()])


def of_seeds(metric: str, values: pd.Series[float]) -> str:
    """Mean ± deviation of a metric for a reader; empty where a seed lacks it."""
    mean, deviation = values.mean(skipna=False), values.std(skipna=False)
    if math.isnan(mean):
        return ""
    form = decimals(metric)
    return f"{mean:{form}}" if math.isnan(deviation) else f"{mean:{form}} ± {deviation:{form}}"


def compared(tables: Iterable[pd.DataFrame]) -> list[str]:
    """The headline metrics that settings are compared by: two, at every round that has them."""
    metrics = list(dict.fromkeys(str(column) for table in tables for column in table))
    by_base = {
        base: [m for m in metrics if m.partition(AT_ROUND)[0] == base] for base in _LEAKS_MORE
    }
    return list(itertools.chain.from_iterable([found for found in by_base.values() if found][:2]))


def _one_difference(a: Configuration, b: Configuration) -> list[str]:
    """The key in which two settings differ, with what follows from it; empty if they are several.

    A parameter of a group of which they chose differently only follows from that choice.
    """
    differing = [key for key in a.settings if a.settings[key] != b.settings[key]]
    own = [k for k in differing if not any(k.startswith(f"{group}.") for group in differing)]
    return differing if len(own) == 1 else []


def _pairs(a: Configuration, b: Configuration, study: str, metric: str) -> pd.DataFrame:
    """A row a seed that both have, columns a, b, accuracy_a, accuracy_b and, if known, guess.

    guess is what is reached without the attack: the better baseline, or the end of the null
    interval.
    """
    one, other = (by_seed(group, study) for group in (a, b))
    if metric not in one or metric not in other:
        return pd.DataFrame()
    both = one.index.intersection(other.index)  # of a sweep that was broken off
    one, other = one.loc[both], other.loc[both]
    columns = {"a": one[metric], "accuracy_a": one["accuracy"]}
    columns |= {"b": other[metric], "accuracy_b": other["accuracy"]}
    for guess in (f"best_baseline_{metric}", f"{metric}_null_high"):
        if guess in one and guess in other:
            columns["guess"] = one[guess].where(one[guess] > other[guess], other[guess])
    return pd.DataFrame(columns).dropna(subset=["a", "b"])


def _comparison(
    a: Configuration, b: Configuration, differing: Sequence[str], metric: str, pairs: pd.DataFrame
) -> str:
    from scipy.stats import t

    if pairs["a"].mean() < pairs["b"].mean():
        a, b = b, a
        other_way = {"a": "b", "b": "a", "accuracy_a": "accuracy_b", "accuracy_b": "accuracy_a"}
        pairs = pairs.rename(columns=other_way)
    names = short_names(a.settings)

    def words(group: Configuration, keys: Sequence[str]) -> str:
        chosen = {key: group.settings[key] for key in keys if group.settings[key] != ABSENT}
        return ", ".join(f"{names[key]}={value}" for key, value in chosen.items())

    one, other = words(a, differing), words(b, differing)
    shared = words(a, [key for key in a.settings if key not in differing])
    difference = pairs["a"] - pairs["b"]
    n, mean = len(difference), float(difference.mean())
    reach = float(t.ppf(0.975, n - 1) * difference.std() / math.sqrt(n))
    form = decimals(metric)
    if "guess" in pairs and pairs["a"].mean() <= pairs["guess"].mean():
        verdict = (
            f"by this measure neither {one} nor {other} gives away more than guessing, which "
            f"reaches {pairs['guess'].mean():{form}}"
        )
    elif mean - reach > 0:
        verdict = f"{one} leaks more than {other}"
    elif not difference.any():
        verdict = f"{one} and {other} leak the same, seed by seed"
    else:
        verdict = f"{one} and {other} are not told apart"
    return (
        f"{metric_name(metric)}{f', at {shared}' if shared else ''}: {verdict}: "
        f"{pairs['a'].mean():{form}} against {pairs['b'].mean():{form}}, difference "
        f"{mean:+{form}} [{mean - reach:+{form}}, {mean + reach:+{form}}] over {n} seeds, at test "
        f"accuracies {pairs['accuracy_a'].mean():.3f} and {pairs['accuracy_b'].mean():.3f}."
    )


def _noise(study: StudyRecord, of_run: Mapping[str, object]) -> float:
    """The noise multiplier behind a study's updates; NaN where none is known."""
    own = [value for key, value in _leaves(study.settings) if key == "noise_multiplier"]
    known = [v for v in [*own, *of_run.values()] if isinstance(v, int | float)]
    return float(known[0]) if known else math.nan


def _leaves(settings: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        yield from _leaves(value) if isinstance(value, Mapping) else [(key, value)]


def _without_noise(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_noise(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key != "noise_multiplier"
    }


def _common_name(names: Sequence[str]) -> str:
    """What studies that differ in their noise only are called together.

    >>> _common_name(["geiping_0.01", "geiping_1.0"]), _common_name(["dlg", "dlg"])
    ('geiping', 'dlg')
    """
    if len(set(names)) == 1:
        return names[0]
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same).rstrip("_-.=0123456789") or names[0]
