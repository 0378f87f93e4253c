"""`fedexp rerun RUN`: a run once more, from what was said on its command line.

Without anything said now it has to come to the same figures, and it is said whether it did: that is
what a reviewer wants to know. The settings are composed anew, as for `from=RUN`: a folder gives its
words, and neither code nor trust.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_FAILED, EXIT_OK, parser
from fedexp.core.checks import InputError

if TYPE_CHECKING:
    from fedexp.core.metric import Metric

FILES = ("metrics.csv", "model.safetensors")
"""What holds the figures of a run, and its bits."""


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code: 1 where a run that was repeated as it was came out otherwise."""
    options = parser("rerun", "A run once more; without key=value it has to be the same again.")
    options.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    options.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    options.add_argument("--config-dir", help="a folder of configs of your own")
    given = options.parse_intermixed_args(arguments)
    from fedexp.commands import run

    words, place = _words(given.run_dir, given.overrides)
    options_of_run = ["--config-dir", given.config_dir] if given.config_dir else []
    code = run.main([*options_of_run, *words])
    if code != EXIT_OK or _new_keys(given.overrides):
        return code
    return _compared(given.run_dir, place)


def _words(folder: Path, overrides: Sequence[str]) -> tuple[list[str], Path]:
    """What is said to `fedexp run`, and where the new run will lie."""
    from fedexp.commands.continuation import key_of, taken_over
    from fedexp.commands.trust import refuse_borrowed_trust, refuse_missing_data
    from fedexp.run_folder.documents import read_config

    saved = read_config(folder)
    refuse_borrowed_trust(saved, overrides)
    refuse_missing_data(saved, overrides)
    if not saved.get("overrides") and not saved.get("choices"):
        raise InputError("does not say how it was started", "RUN_DIR", folder)
    said = [o.removeprefix("hydra.run.dir=") for o in overrides if o.startswith("hydra.run.dir=")]
    name = f"{folder.resolve().name}-{time.strftime('%Y-%m-%dT%H-%M-%S')}"
    place = Path(said[-1]) if said else Path("outputs/reruns") / name.replace("=", "-")
    kept = taken_over(folder, saved, [key_of(override) for override in overrides])
    others = [o for o in overrides if not o.startswith("hydra.run.dir=")]
    # The job of a sweep is repeated alone.
    return [*kept, *others, f"hydra.run.dir='{place}'", "hydra.mode=RUN"], place


def _new_keys(overrides: Sequence[str]) -> bool:
    """Whether something is said that may change the figures."""
    from fedexp.commands.continuation import key_of
    from fedexp.run_folder.format import WITHOUT_EFFECT

    roots = {key_of(override).partition(".")[0] for override in overrides}
    return bool(roots - {*WITHOUT_EFFECT, "hydra"})


def _compared(before: Path, after: Path) -> int:
    """Say whether two folders hold the same figures, and the first ones that differ."""
    from fedexp.commands.run import document_of
    from fedexp.core.text import printable
    from fedexp.privacy.account import OPERATING_SYSTEM
    from fedexp.run_folder.documents import read_summary
    from fedexp.run_folder.rows import shared_rows

    def told(text: str, same: bool | None, different: Sequence[Mapping[str, Any]] = ()) -> int:
        answer(
            text,
            lambda: {
                "schema": "rerun/1",
                "before": str(before),
                "same": same,
                "different": list(different),
                "run": document_of(after),
            },
        )
        return EXIT_FAILED if same is False else EXIT_OK

    if all(_bytes(before / name) == _bytes(after / name) for name in FILES):
        return told(f"The same bits as {before}: {' and '.join(FILES)} are equal.", True)
    summary = read_summary(before)
    if summary.get("status") != "complete":
        return told(f"{before} was not complete: nothing to compare with.", None)
    first, second = (_figures(shared_rows(folder)) for folder in (before, after))
    both = [key for key in first if key in second]
    different = [key for key in both if first[key] != second[key]]
    lines = [f"Not the same as {before}: {len(different)} of {len(both)} figures differ"]
    lines[0] += ", from" * bool(different)
    for folder, figures_of in ((before, first), (after, second)):
        if alone := len(figures_of) - len(both):
            lines.append(f"  {alone} figures are of {folder} alone")
    for key in different[:3]:
        round, scope, client, metric = key
        name = printable(f"round {round}, {scope} {metric} of {client}")
        lines.append(f"  {name}: {first[key]:.6g} then, {second[key]:.6g} now")
    reason = (
        "Other versions or another processor change last digits: origin.json of each says which."
    )
    if (summary.get("privacy") or {}).get("noise_source") == OPERATING_SYSTEM:
        reason = f"Noise comes from {OPERATING_SYSTEM}."
    names = ("round", "scope", "client", "metric")
    figures = [
        {**dict(zip(names, key, strict=True)), "then": first[key], "now": second[key]}
        for key in different
    ]
    return told("\n".join([*lines, reason]), False, figures)


def _figures(rows: Sequence[Metric]) -> dict[tuple[int, str, str, str], float]:
    return {
        (row.round, row.scope, row.client, row.metric): row.value
        for row in rows
        if math.isfinite(row.value)
    }


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
