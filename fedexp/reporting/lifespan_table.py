"""How long a backdoor outlives its attack: success over the rounds after the last attacked one.

    rounds after = r - (l + 1),   r the number of an evaluated round, from 1,   l the last attacked
                                  one, from 0: attack.last_round, or before it where only a share
                                  of the rounds is attacked

0 is the attack's last round. Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning",
ICML 2022, section 4, call lifespan the rounds until success falls below a threshold; a threshold is
a choice, so that success itself stands here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from fedexp.core.attack_schedule import AttackSchedule, schedule_of
from fedexp.reporting.adversary import attack_success
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration, short_names, spread, to_markdown

_SHOWN = (0, 10, 50)  # of the evaluations, beside the last: what a table to read has room for


def lifespans(groups: Sequence[Configuration]) -> dict[int, pd.DataFrame]:
    """By a group's place its success `[evaluations, seeds]`, indexed by rounds after the attack.

    Of the groups whose runs went on after an attack that wants an answer.
    """
    found = {place: _by_seed(group) for place, group in enumerate(groups)}
    return {place: curves for place, curves in found.items() if (curves.index > 0).any()}


def lifespan_table(groups: Sequence[Configuration]) -> pd.DataFrame:
    """One row for every evaluation from the attack's last round on, of every such configuration.

    Columns: the settings that differ, rounds_after, n (seeds with a complete run), success_mean and
    success_sd (the sample's; NaN for one seed).
    """
    return pd.DataFrame(
        {
            **groups[place].settings,
            "rounds_after": after,
            "n": len(values),
            "success_mean": values.mean(),
            "success_sd": values.std(),
        }
        for place, curves in lifespans(groups).items()
        for after, values in curves.iterrows()
    )


def lifespan_markdown(groups: Sequence[Configuration]) -> str:
    """Success in the attack's last round, 10 and 50 rounds later, and at the end; "" for none."""
    found = lifespans(groups)
    if not found:
        return ""
    evaluated = {after for curves in found.values() for after in curves.index}
    shown = sorted({*_SHOWN, max(evaluated)} & evaluated)
    rows = []
    for place, curves in found.items():
        names = short_names(groups[place].settings)
        mean, deviation = curves.mean(axis=1), curves.std(axis=1)
        rows.append(
            {names[key]: value for key, value in groups[place].settings.items()}
            | {
                f"{after} rounds after": spread(
                    mean.get(after, math.nan), deviation.get(after, math.nan)
                )
                for after in shown
            }
        )
    return (
        "The share of the images meant that are answered as the adversary wants, mean ± standard "
        "deviation over the seeds, from the attack's last round on. What a model answers so by "
        "itself is in it (attack.n_malicious=0 tells how much).\n\n"
        + to_markdown(pd.DataFrame(rows).fillna(""))
    )


def _by_seed(group: Configuration) -> pd.DataFrame:
    """Success by the rounds after the attack (index) and the seed (columns); may be empty."""
    attacked = replace(group, runs=tuple(run for run in group.runs if run.attacked))
    return attacked.curves_by_seed(_after_the_attack)


def _after_the_attack(run: Run) -> pd.Series[float]:
    success, last = attack_success(run), _schedule(run.config.get("attack") or {}).end
    if last is None:
        return success.iloc[:0]
    success.index = success.index - (last + 1)
    return success[success.index >= 0]


def _schedule(attack: Mapping[str, Any]) -> AttackSchedule:
    return schedule_of({"first_round": 0, **attack})
