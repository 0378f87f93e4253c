"""origin.json: what a run's figures are made of, and which rounds were computed on what.

data, partition, sources   as in `fedexp.core.origin.Origin`
weights                    as there; left out where the model started afresh
stretches                  [{"from_round": 1, "torch": ..., "kernels": ..., ...}, ...]: one, and
                           one more for every time that it went on on another machine
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fedexp.core.checks import InputError
from fedexp.core.documents import read_json_object
from fedexp.core.files import to_json, write_atomically
from fedexp.core.origin import Origin
from fedexp.core.text import cleaned
from fedexp.run_folder.shapes import ORIGIN, checked

_FILE = "origin.json"


def write_origin(folder: Path, origin: Origin) -> None:
    """Note the origin of a run's first round."""
    _write(folder, origin, [{"from_round": 1, **origin.machine}])


def refuse_other_origin(folder: Path, origin: Origin) -> None:
    """Raise InputError if the run in `folder` is made of something else than `origin`.

    A run of an older version has noted its partition only.
    """
    before = _read(folder / _FILE)
    partition = before.get("partition") or _read(folder / "partition.json").get("hash")
    other = []
    if before.get("data", origin.data) != origin.data:
        other.append("other data")
    if partition not in (None, origin.partition):
        other.append("another partition")
    if before and before.get("weights", "") != origin.weights:
        other.append("another file of initial weights")
    sources = before.get("sources") or {}
    changed = [name for name, now in origin.sources.items() if sources.get(name, now) != now]
    if changed:
        other.append(f"other code of {', '.join(changed)}")
    if other:
        raise InputError(
            f"it was made with {', '.join(other)}: bring back what it was started with, or start "
            "a new run",
            "RUN_DIR",
            folder,
        )


def note_stretch(folder: Path, origin: Origin, done: int) -> None:
    """Note on what the rounds after the first `done` (1 or more) are computed."""
    kept = [s for s in _stretches(folder) if s.get("from_round", 1) <= done]
    if not kept or _machine(kept[-1]) != origin.machine:
        kept.append({"from_round": done + 1, **origin.machine})
    _write(folder, origin, kept)


def remarks_on_origin(folder: Path) -> list[str]:
    """A sentence for every time that the run went on on another machine; none for most."""
    stretches = _stretches(folder)
    return [_sentence(before, after) for before, after in pairwise(stretches)]


def other_machine(folder: Path, origin: Origin) -> str:
    """What has changed since the run's last rounds were computed; empty: nothing that is known."""
    return _changes(_machine(_stretches(folder)[-1]), origin.machine)


def data_of(folder: Path) -> str:
    """The digest of the examples that the run was given; empty where it is not known."""
    return str(_read(folder / _FILE).get("data") or "")


def machines_of(folder: Path) -> list[dict[str, Any]]:
    """What the run's rounds were computed on, one after the other; nothing where unknown."""
    return [_machine(stretch) for stretch in _stretches(folder)]


def _sentence(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    old, new = _machine(before), _machine(after)
    how = _changes(old, new) or "on a machine that is not known to be that of the rounds before"
    return (
        f"from round {after['from_round']} on: {how}; the last digits are not those of a run on "
        "one machine"
    )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {old[k]} -> {v}" for k, v in new.items() if k in old and old[k] != v)


def _machine(stretch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stretch.items() if key != "from_round"}


def _stretches(folder: Path) -> list[dict[str, Any]]:
    """At least one; of a run of an older version it is not known on what."""
    stretches = _read(folder / _FILE).get("stretches")
    return stretches if isinstance(stretches, list) and stretches else [{"from_round": 1}]


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = cleaned(checked(read_json_object(path), ORIGIN, path))
    except (OSError, ValueError):
        return {}
    return document


def _write(folder: Path, origin: Origin, stretches: Sequence[Mapping[str, Any]]) -> None:
    document = {
        "data": origin.data,
        "partition": origin.partition,
        "sources": origin.sources,
        **({"weights": origin.weights} if origin.weights else {}),
        "stretches": stretches,
    }
    write_atomically(folder / _FILE, to_json(document, indent=1))
