"""The work of `fedexp leakage compare A B`: the same studies of two models, side by side.

A and B are runs' folders or files of weights. A figure of one is comparable with that of the other
only as far as the conditions were equal, so those that were not are named under the table. A study
whose findings are there already with the same settings is not carried out again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedexp.commands.model_files import Attacked, attack_file, conditions_of
from fedexp.commands.studies import leak
from fedexp.core.checks import InputError
from fedexp.reporting.leakage import metric_name, number
from fedexp.run_folder.documents import read_config
from fedexp.run_folder.findings import read_findings
from fedexp.run_folder.format import PROVENANCE, WITHOUT_EFFECT

OF_FILES = ("dataset", "model", "train_examples", "seed", "task")
ONLY_OF_RUNS = (
    *("partition", "rounds", "n_clients", "setting", "training", "attack", "privacy", "channel"),
    *("algorithm", "aggregator"),
)
"""What is missed where one of the two is a file; two runs are compared in all that decides them."""
ENDS = ("_low", "_high")


def compare(
    paths: tuple[Path, Path],
    overrides: Sequence[str],
    models: tuple[str | None, str | None],
    members: str | None,
    scale: str,
    force: bool,
) -> tuple[Attacked, Attacked]:
    """A and B, attacked.

    Args:
        paths: of A and B, each a run's folder or a file.
        overrides: as of `fedexp leakage`; what is about data is for files alone.
        models: of files, which model each is.
        members: of files.
        scale: of files.
        force: carry out studies again.

    Raises:
        InputError: one of them cannot be attacked so.
    """
    if not any(override.startswith("leakage") for override in overrides):
        reason = "choose what to compare: leakage=model_inversion or leakage=loss_threshold"
        raise InputError(reason, "leakage", None)
    with_files = any(path.is_file() for path in paths)
    of_a_run = [o for o in overrides if not (with_files and o.startswith(OF_FILES))]
    a, b = (
        attack_file(path, overrides, model, members, scale, None, force)
        if path.is_file()
        else _attacked_run(path, of_a_run, force)
        for path, model in zip(paths, models, strict=True)
    )
    return a, b


def side_by_side(a: Attacked, b: Attacked) -> str:
    """The table, and which conditions were not equal."""
    unequal = [f"  {condition}: {how}" for condition, how in unequal_conditions(a, b).items()]
    said = [f"Assumed of {x.name}: {sentence}." for x in (a, b) for sentence in x.said]
    head = "Not equal, so that a difference may come from these:"
    if not unequal:
        head = "All conditions that are known were equal."
    return "\n".join([*_table(a, b), "", head, *unequal, *said])


def unequal_conditions(a: Attacked, b: Attacked) -> dict[str, str]:
    """The conditions that differ, or that nobody knows of one of the two, each with how."""
    found = {}
    for key in dict.fromkeys([*a.conditions, *b.conditions]):
        if not (key in ONLY_OF_RUNS or all(key in x.conditions for x in (a, b))):
            continue
        mine, its = (x.conditions.get(key, "not known of a file") for x in (a, b))
        if mine != its:
            found[key] = " against ".join(map(_short, _apart(mine, its)))
    settings = {study.name: study.settings for study in b.studies}
    for study in a.studies:
        if study.name in settings and settings[study.name] != study.settings:
            found[f"leakage.{study.name}"] = "other settings"
    return found


def _attacked_run(path: Path, own: Sequence[str], force: bool) -> Attacked:
    config = read_config(path)
    leak(path, own, None, force)
    wanted = {o.split("=")[1].strip("[]") for o in own if o.startswith("leakage=")}
    names = {name.strip() for words in wanted for name in words.split(",")}
    found = tuple(study for study in read_findings(path) if study.name in names)
    conditions = {"members": "train", "scale": "fedexp", **conditions_of(config)}
    model = {key: config["model"].get(key) for key in ("weights", "frozen")}
    conditions |= {f"model.{key}": value for key, value in model.items()}
    without = {*WITHOUT_EFFECT, *PROVENANCE, *conditions}
    conditions |= {key: value for key, value in config.items() if key not in without}
    return Attacked(path, path, found, conditions, ())


def _class(node: Mapping[str, Any]) -> str:
    """As a table calls it."""
    return str(node.get("_target_", "")).rpartition(".")[2]


def _table(a: Attacked, b: Attacked) -> list[str]:
    of_b = {study.name: study for study in b.studies}
    rows = [("study", "metric", a.name, b.name)]
    for study in a.studies:
        other = of_b.get(study.name)
        if other is None:
            continue
        for metric in study.headline:
            if not metric.endswith(ENDS):
                cells = (_cell(study.headline, metric), _cell(other.headline, metric))
                rows.append((study.name, metric_name(metric), *cells))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]


def _cell(headline: Mapping[str, float], metric: str) -> str:
    value = headline.get(metric, math.nan)
    if math.isnan(value):
        return "-"
    low, high = (headline.get(f"{metric}{end}", math.nan) for end in ENDS)
    if math.isnan(low) or math.isnan(high):
        low, high = (headline.get(f"{metric}_null{end}", math.nan) for end in ENDS)
        chance = (
            "" if math.isnan(low) else f" (null {number(metric, low)} to {number(metric, high)})"
        )
        return number(metric, value) + chance
    return f"{number(metric, value)} [{number(metric, low)}, {number(metric, high)}]"


def _apart(mine: object, its: object) -> tuple[object, object]:
    """Of two parts, what they are and which settings differ."""
    if not (isinstance(mine, Mapping) and isinstance(its, Mapping)):
        return mine, its
    same = {k for k in mine if k in its and mine[k] == its[k]} - {"_target_"}
    one, other = ({k: v for k, v in x.items() if k not in same} for x in (mine, its))
    return one, other


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        target = _class(value)
        rest = ", ".join(f"{k} {v}" for k, v in value.items() if k != "_target_")
        return f"{target} ({rest})" if rest else target
    return str(value)
