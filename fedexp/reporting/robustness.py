"""Which defence survives which attack: the table behind a sweep's attack matrix.

A defence is the rule with everything the server puts before it (`trimmed_mean + nnm`) and the
workers' momentum. A run in which no client is malicious belongs to the attack `none`, whatever
attack was named. For every defence the worst case is the lowest mean over the attacks:

    cost without an attacker = accuracy(mean, none) - accuracy(defence, none)
    accuracy lost            = accuracy(defence, none) - accuracy(defence, attack)

An attack that was tried at several strengths counts with the one that hurts the defence most: the
lowest mean accuracy, or the most success where it wants an answer. What no defence can improve on
stands beside them where the runs have it: a mean from which exactly the attackers were left out, as
the validation of updates leaves out clients who send NaN (attack=broken).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fedexp.reporting.divergence import NOTE, diverged, marked
from fedexp.reporting.results import Run
from fedexp.reporting.tables import (
    ABSENT,
    settings_of,
    short_names,
    to_markdown,
    varied_keys,
)

NOBODY, WORST, PERFECT = "none", "worst case", "perfect defence"
PANEL, DEFENCE, ATTACK = "panel", "defence", "attack"

_COLUMNS = [
    *(PANEL, DEFENCE, ATTACK, "n", "failed", "unfinished", "unmeasured", "diverged"),
    *("test_accuracy_mean", "test_accuracy_sd", "accuracy_lost", "cost_without_attacker"),
    *("attack_success_mean", "attack_success_sd", "strength"),
]
_NO_STRENGTHS = (  # who, and when
    *("attack.n_malicious", "attack.fraction", "attack.extra_clients"),
    *("attack.first_round", "attack.last_round"),
    *("attack.schedule.share_of_rounds", "attack.schedule.clients_a_round"),
)
_MOST_COLUMNS = 8  # of a table to read; with more defences than that they become its rows
_SERVER_PARTS = ("aggregator", "pre_aggregation", "detector")
_OF_A_DEFENCE = (
    *(*_SERVER_PARTS, "update_validation", "assumed_malicious", "worker_momentum"),
    "training.worker_momentum",  # in older runs
)


def robustness_table(runs: Sequence[Run]) -> pd.DataFrame | None:
    """One row for each attack on each defence in each panel; None if the attack does not vary.

    Columns: panel (all else that differs between runs, "" if nothing does), defence, attack, n
    (seeds with a complete run), failed, unfinished, unmeasured (1 where no figure is known),
    diverged (complete runs in which honest updates could not be used),
    test_accuracy_mean, test_accuracy_sd, accuracy_lost, cost_without_attacker (in the rows of
    `none`), attack_success_mean and attack_success_sd (where the attack wants something; in rows of
    `none` what there is of it without an attacker), strength (which of several the row is of).
    After the attacks on a defence comes a row `worst case`: the smallest n and accuracy and the sum
    of the other counts. If any attack is unmeasured, the worst case may be worse than that. The
    defence `perfect defence` comes first, where it is known.
    """
    known = [run for run in runs if run.config]
    keys = [key for key in varied_keys(known) if key != "seed"]
    labels = _Labels(known, keys)
    cells: dict[tuple[str, str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    perfect: dict[str, list[Run]] = defaultdict(list)
    references: dict[tuple[str, str], list[Run]] = defaultdict(list)
    beside: dict[tuple[str, str], tuple[str, str]] = {}
    for run in known:
        panel, defence, attack = labels.panel(run), labels.defence(run), labels.attack(run)
        cells[panel, defence, attack][labels.strength(run)].append(run)
        beside[panel, defence] = (panel, labels.beside_the_parts(run))
        if attack == NOBODY and defence_of(run) == "mean":
            references[beside[panel, defence]].append(run)
        if defence == "mean" and run.attacked and run.dropped_exactly_the_attackers:
            perfect[panel].append(run)
    attacks = list(dict.fromkeys(attack for _, _, attack in cells))
    if len(attacks) < 2:
        return None
    attacks.sort(key=lambda attack: attack != NOBODY)
    rows = []
    panels = list(dict.fromkeys(panel for panel, _ in beside))
    # The mean first, which the others are compared with.
    order = sorted(beside, key=lambda key: (panels.index(key[0]), not _of_mean(key[1]), key[1]))
    for panel, of_honest in perfect.items():
        best = {attack: {"": of_honest} for attack in attacks}
        best[NOBODY] = {"": references[beside[panel, "mean"]]}
        reached = _statistics(best[NOBODY][""])["test_accuracy_mean"]
        rows += [{PANEL: panel, DEFENCE: PERFECT, **row} for row in _attacks_on(best, reached)]
    for panel, defence in order:
        of_mean = _statistics(references[beside[panel, defence]])["test_accuracy_mean"]
        rows += [
            {PANEL: panel, DEFENCE: defence, **row}
            for row in _attacks_on(
                {attack: cells.get((panel, defence, attack), {"": []}) for attack in attacks},
                of_mean,
            )
        ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def matrices(table: pd.DataFrame, figure: str) -> dict[str, pd.DataFrame]:
    """For each panel one of the table's figures: a row an attack, a column a defence."""
    attacks = [*(a for a in dict.fromkeys(table[ATTACK]) if a != WORST), WORST]
    return {
        str(panel): rows.pivot(index=ATTACK, columns=DEFENCE, values=figure).reindex(
            index=attacks, columns=list(dict.fromkeys(rows[DEFENCE]))
        )
        for panel, rows in table.groupby(PANEL, sort=False)
    }


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """The table to read: panels of one defence each are the columns of one panel.

    What a defence costs is left out then: beside it stands no other one of the same settings.

    >>> table = pd.DataFrame({"panel": ["a=1", "a=2"], "defence": ["mean", "mean + nnm"]})
    >>> side_by_side(table)["defence"].tolist()
    ['a=1 (mean)', 'a=2 (mean + nnm)']
    """
    if (table.groupby(PANEL)[DEFENCE].nunique() > 1).any() or table[PANEL].nunique() < 2:
        return table
    of = " (" + table[DEFENCE] + ")" if table[DEFENCE].nunique() > 1 else ""
    return table.assign(
        **{PANEL: "", DEFENCE: table[PANEL] + of, "cost_without_attacker": math.nan}
    )


def robustness_markdown(runs: Sequence[Run], table: pd.DataFrame) -> str:
    """The matrix of test accuracy, what each defence costs, and the attacks' success."""
    table = side_by_side(table)
    blocks = ["Test accuracy at the last round, mean over the seeds."]
    success = matrices(table, "attack_success_mean")
    cost = matrices(table, "cost_without_attacker")
    unmeasured, broken = matrices(table, "unmeasured"), matrices(table, "diverged")
    for panel, accuracy in matrices(table, "test_accuracy_mean").items():
        if panel:
            blocks.append(f"### {panel}")
        shown = accuracy.map(_number).T
        bounded = ("≤ " + shown[WORST]).replace("≤ -", "-")
        shown[WORST] = shown[WORST].where(unmeasured[panel].T[WORST] == 0, bounded)
        shown = shown.combine(broken[panel].T.drop(columns=WORST), _marked, overwrite=False)
        if cost[panel].notna().any(axis=None):
            shown["cost without an attacker"] = cost[panel].T[NOBODY].map(_number)
        blocks.append(_readable(shown))
        measured = success[panel].drop(index=WORST).dropna(how="all")
        if not measured.empty:
            blocks.append("Attack success: the share of the adversary's wanted answers given.")
            blocks.append(_readable(measured.map(_number).T))
    of_divergence = NOTE if table["diverged"].any() else ""
    blocks += filter(None, [missing_note(table), of_divergence, _idle_note(runs)])
    return "\n\n".join(blocks)


def missing_note(table: pd.DataFrame) -> str:
    """How many jobs the figures leave out, in a sentence; empty if there are none."""
    cells = table[table[ATTACK] != WORST]
    failed, unfinished = int(cells["failed"].sum()), int(cells["unfinished"].sum())
    counts = {"failed": failed, "unfinished": unfinished}
    left_out = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    empty = int(cells["unmeasured"].sum())
    notes = []
    if left_out:
        notes.append(f"Jobs left out: {left_out}.")
    if empty:
        notes.append(f"-: no complete run ({empty} of {len(cells)} cells).")
    return " ".join(notes)


def _idle_note(runs: Sequence[Run]) -> str:
    """What to know of the cost without an attacker if nobody was then expected to attack."""
    assumed: dict[bool, set[int]] = {True: set(), False: set()}
    for run in runs:
        if run.config:
            assumed[run.attacked].add(int(run.config.get("assumed_malicious", 0)))
    if assumed[False] != {0} or assumed[True] <= {0}:
        return ""
    return (
        "Without an attacker the defences assumed that nobody is malicious, under attack "
        f"{' or '.join(map(str, sorted(assumed[True])))}: what a defence on its guard costs is "
        "not measured here (set assumed_malicious to one number for all runs)."
    )


def defence_of(run: Run) -> str:
    """The rule and what stands before it, without what is there anyway.

    >>> choices = {"aggregator": "krum", "pre_aggregation": "nnm", "detector": "none"}
    >>> defence_of(Run(path=None, config={"choices": choices}, summary={}))
    'krum + nnm'
    """
    chosen = [run.choices.get(part, NOBODY) for part in _SERVER_PARTS]
    return " + ".join(name for name in chosen if name != NOBODY)


def _attacks_on(
    cells: Mapping[str, Mapping[str, Sequence[Run]]], of_mean: float
) -> list[dict[str, object]]:
    """The rows of one defence, from the runs by attack and strength.

    `of_mean` is the plain mean's accuracy without an attacker.
    """
    rows = {attack: _strongest(strengths) for attack, strengths in cells.items()}
    own = rows[NOBODY]["test_accuracy_mean"] if NOBODY in rows else math.nan
    attacked = pd.DataFrame([row for attack, row in rows.items() if attack != NOBODY])
    worst = {
        "n": attacked["n"].min(),
        **attacked[["failed", "unfinished", "unmeasured", "diverged"]].sum(),
        "test_accuracy_mean": attacked["test_accuracy_mean"].min(),
    }
    return [
        {
            ATTACK: attack,
            **row,
            "accuracy_lost": math.nan if attack == NOBODY else own - row["test_accuracy_mean"],
            "cost_without_attacker": of_mean - own if attack == NOBODY else math.nan,
        }
        for attack, row in {**rows, WORST: worst}.items()
    ]


def _strongest(strengths: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """The row of the strength that hurts most, with the counts of all."""
    rows: list[dict[str, Any]] = [
        {**_statistics(runs), "strength": name} for name, runs in strengths.items()
    ]
    wants_answers = any(not math.isnan(row["attack_success_mean"]) for row in rows)
    figure, most = ("attack_success_mean", -1) if wants_answers else ("test_accuracy_mean", 1)
    known = [row for row in rows if not math.isnan(row[figure])] or rows
    strongest = min(known, key=lambda row: most * row[figure])
    counts = {count: sum(row[count] for row in rows) for count in ("failed", "unfinished")}
    unmeasured = int(any(row["unmeasured"] for row in rows))
    return {
        **strongest,
        **counts,
        "unmeasured": unmeasured,
        "strength": strongest["strength"] if len(rows) > 1 else "",
    }


def _statistics(runs: Sequence[Run]) -> dict[str, float]:
    """Counts, and means and deviations over the seeds of the complete runs."""
    complete = [run for run in runs if run.status == "complete"]
    failed = sum(run.status == "failed" for run in runs)
    figures = pd.DataFrame(
        {
            "test_accuracy": [run.final("test", "accuracy") for run in complete],
            "attack_success": [run.attack_success for run in complete],
        },
        index=[str(run.seed) for run in complete],
        dtype="float64",
    )
    # Runs that share a seed are repeats of one experiment, and count as one.
    by_seed = figures.groupby(level=0).mean()
    statistics: dict[str, float] = {
        "n": len(by_seed),
        "failed": failed,
        "unfinished": len(runs) - len(complete) - failed,
        "diverged": sum(map(diverged, complete)),
    }
    for name in figures:
        statistics[f"{name}_mean"] = by_seed[name].mean(skipna=False)
        statistics[f"{name}_sd"] = by_seed[name].std(skipna=False)
    statistics["unmeasured"] = int(math.isnan(statistics["test_accuracy_mean"]))
    return statistics


class _Labels:
    """Names the panel, the defence and the attack of a run by what varies in the sweep."""

    def __init__(self, runs: Sequence[Run], keys: Sequence[str]) -> None:
        self._attack = [key for key in keys if _below(key, ("attack",))]
        self._attacks = {(_kind_of_attack(run), _name_of_attack(run)) for run in runs}
        self._defence = [key for key in keys if _below(key, _OF_A_DEFENCE)]
        self._panel = [key for key in keys if key not in (*self._attack, *self._defence)]
        self._values: dict[tuple[str, str], set[object]] = defaultdict(set)
        for run in runs:
            for key, value in settings_of(run, keys).items():
                self._values[_choice(run, key), key].add(value)

    def attack(self, run: Run) -> str:
        if not run.attacked:
            return NOBODY
        who = [key for key in self._attack if key in _NO_STRENGTHS]
        return _joined(self._family(run), self._parameters(run, who))

    def _family(self, run: Run) -> str:
        """The shortest name of an attack of this kind that the run's own begins with.

        `ipm_strong` is a strength of `ipm`; what has a name of its own stands by itself.
        """
        kind, name = _kind_of_attack(run), _name_of_attack(run)
        alike = (other for of, other in self._attacks if of == kind and name.startswith(other))
        return min(alike, key=len)

    def strength(self, run: Run) -> str:
        """Which variant of its attack a run is of, by its choice and the values that vary."""
        how = [key for key in self._attack if key not in _NO_STRENGTHS]
        return _joined(_name_of_attack(run), self._parameters(run, how))

    def defence(self, run: Run) -> str:
        return _joined(defence_of(run), self._parameters(run, self._defence))

    def panel(self, run: Run) -> str:
        names = short_names(self._panel)
        settings = settings_of(run, self._panel).items()
        return ", ".join(f"{names[key]}={value}" for key, value in settings if value != ABSENT)

    def beside_the_parts(self, run: Run) -> str:
        """What a defence and the plain mean that it is compared with must have in common."""
        keys = [key for key in self._defence if not _below(key, _SERVER_PARTS)]
        return self._parameters(run, keys)

    def _parameters(self, run: Run, keys: Sequence[str]) -> str:
        """The parameters that vary between runs of this run's choice, which its name leaves out."""
        names = short_names(keys)
        return ", ".join(
            f"{names[key]}={value}"
            for key, value in settings_of(run, keys).items()
            if key not in ("attack", *_SERVER_PARTS)
            and value != ABSENT
            and len(self._values[_choice(run, key), key]) > 1
        )


def _kind_of_attack(run: Run) -> str:
    """What attacks have in common that differ by their parameters alone."""
    node = run.config.get("attack") or {}
    return str(node.get("_target_", _name_of_attack(run)))


def _name_of_attack(run: Run) -> str:
    return run.choices.get("attack", NOBODY)


def _below(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _choice(run: Run, key: str) -> str:
    """What was chosen of the group that `key` is a parameter of; "" for a key of no group."""
    group, _, parameter = key.partition(".")
    return run.choices.get(group, "") if parameter else ""


def _joined(name: str, parameters: str) -> str:
    return f"{name}, {parameters}" if parameters else name


def _of_mean(defence: str) -> bool:
    return defence.replace(",", " ").split()[0] == "mean"


def _readable(table: pd.DataFrame) -> str:
    """Rows of defences turned into columns, if there are not too many for a page."""
    corner = DEFENCE
    if len(table) <= _MOST_COLUMNS:
        table, corner = table.T, ATTACK
    return to_markdown(table.rename_axis(columns=None).reset_index(names=corner))


def _marked(figures: pd.Series, counts: pd.Series) -> pd.Series:
    """A column of figures, with a mark where the count is not 0."""
    return figures.combine(counts, marked)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
