"""What kind of value lies where in a run folder's documents, so far as readers count on it.

A shape is a type; `[shape]`, a list of such; `{"*": shape}`, a mapping of such by any name; or a
mapping of known names, each of which may be missing or null, beside names that nobody reads. Of a
`Whole`, what it needs must be there. A function says itself what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.plots import Plots

Shape: TypeAlias = Any
LARGEST = 2**63


@final
@dataclass(frozen=True)
class Whole:
    """A mapping that needs some of its names, if it has any."""

    needs: Mapping[str, Shape]
    also: Mapping[str, Shape]


def _seed(value: object) -> str:
    """Of any length: streams are keyed by it, and nothing counts with it."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return "" if whole else f"must be a whole number, and is {value!r}"


def _table(value: object) -> str:
    """Rows of equally many whole numbers; too many to be looked at one by one."""
    try:
        found = np.asarray(value)
    except ValueError:
        return "its rows differ in length"
    fits = found.size == 0 or (found.ndim == 2 and found.dtype.kind == "i")
    return "" if fits else "must be rows of whole numbers"


def _interval(value: object) -> str:
    """A figure and the ends of its interval, each a number or null."""
    numbers = value if isinstance(value, list) else []
    fits = len(numbers) == 3 and all(x is None or _fits(x, float) for x in numbers)
    return "" if fits else "must be [value, low, high]"


def _scalar(value: object) -> str:
    """A number, or true or false."""
    return "" if isinstance(value, bool) or _fits(value, float) else "must be a number"


def _plots(value: object) -> str:
    """True, false, or what `fedexp.core.plots` knows."""
    try:
        Plots.of(value)
    except InputError as error:
        return " ".join(str(error).split())
    return ""


_PARTS = {"*": float}
_SPANS = {"*": _PARTS}
SUMMARY: Shape = {
    **dict.fromkeys(("status", "error", "stopped", "partition_hash", "git_commit"), str),
    **dict.fromkeys(("rounds", "rounds_planned", "parameters", "threads"), int),
    "seed": _seed,
    **dict.fromkeys(("seconds", "examples_per_second", "bytes_up", "bytes_down"), float),
    **dict.fromkeys(("peak_memory_mb", "peak_memory_of_a_worker_mb"), float),
    **dict.fromkeys(("final", "mean_last_5", "mean_last_rounds", "leakage"), _SPANS),
    "final_over_clients": {"*": _SPANS},
    "majority_baseline": _PARTS,
    "malicious_clients": [int],
    "remarks": [str],
    "sites": {"*": {"*": _scalar}},
    "from": {**dict.fromkeys(("run", "file", "config_hash", "model_sha256"), str), "rounds": int},
    "choices": {"*": object},
    "privacy": Whole(
        {
            **dict.fromkeys(("mechanism", "unit", "adjacency", "accountant", "sampling"), str),
            **dict.fromkeys(("noise_added_by", "noise_source"), str),
            "delta": float,
        },
        {
            **dict.fromkeys(("epsilon", "max_epsilon", "clip_norm", "clip_norm_l1"), float),
            **dict.fromkeys(("noise_multiplier", "scale", "expected_cohort"), float),
            "note": str,
            "not_covered": [str],
        },
    ),
}
CONFIG: Shape = {
    **dict.fromkeys(("rounds", "n_clients", "assumed_malicious"), int),
    "seed": _seed,
    **{key: {"*": object} for key in ("attack", "paths", "choices", "pre_aggregation", "leakage")},
    "overrides": [object],
    "config_folders": [object],
    "rounds_before": [int],
    "plots": _plots,
    "quiet": bool,
}
PARTITION: Shape = {
    "clients": str,
    "class_names": [object],
    "names": [object],
    "sizes": [int],
    "counts": _table,
    "skew": {"*": float},
}
ORIGIN: Shape = {
    **dict.fromkeys(("data", "partition", "weights"), str),
    "sources": {"*": str},
    "stretches": [Whole({"from_round": int}, {"*": str})],
}
_INTERVALS: Shape = {"*": _interval}
VERDICT: Shape = Whole(
    {
        "patients": str,
        "sites": {
            "*": Whole(
                {
                    **dict.fromkeys(("n", "patients", "trained_on"), int),
                    "roles": {"*": _INTERVALS},
                    "gain": _INTERVALS,
                },
                {"dishonest": bool},
            )
        },
        "left_out": _INTERVALS,
        "attacked": {
            "*": Whole({"dishonest": [str]}, {"honest_accuracy": float, "without_attack": float})
        },
        "not_measured": {"*": str},
    },
    {"operating_point": str, "settings": {"*": object}},
)
TIMING: Shape = Whole({"round": int}, {"*": float})


def checked(document: Any, shape: Shape, path: Path) -> Any:
    """The document; InputError names the file and the place in it that is of another kind."""
    if document is not None and (wrong := _wrong(document, shape, "")):
        raise InputError(f"is not what a run wrote: {wrong}", "file", path)
    return document


def _wrong(value: Any, shape: Shape, name: str) -> str:
    """What does not fit, in words; "" where everything does."""
    if isinstance(shape, Whole):
        missing = [key for key in shape.needs if value and isinstance(value, Mapping)]
        missing = [key for key in missing if value.get(key) is None]
        if missing:
            return f"{name or 'it'} lacks {', '.join(missing)}"
        return _wrong(value, {**shape.also, **shape.needs}, name)
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return _is_no(value, "a mapping", name)
        kinds = ((key, inner, shape.get(key, shape.get("*"))) for key, inner in value.items())
        return _first(
            _wrong(inner, kind, f"{name}.{key}".lstrip("."))
            for key, inner, kind in kinds
            if inner is not None and kind is not None
        )
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _is_no(value, "a list", name)
        return _first(_wrong(item, shape[0], f"{name}.{k}") for k, item in enumerate(value))
    if not isinstance(shape, type):
        reason = shape(value)
        return f"{name}: {reason}" if reason else ""
    if _fits(value, shape):
        return ""
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    return _is_no(value, words[shape], name)


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind in (int, float):
        return False
    if isinstance(value, int) and kind in (int, float):
        return abs(value) < LARGEST  # a whole number of a thousand digits is no float's
    return isinstance(value, kind)


def _first(reasons: Iterable[str]) -> str:
    return next(filter(None, reasons), "")


def _is_no(value: Any, what: str, name: str) -> str:
    return f"{name or 'it'} must be {what}, and is {' '.join(str(value).split())[:40]!r}"
