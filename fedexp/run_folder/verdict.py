"""A verdict on disk: RUN/verdict.json, and what of it the run's summary says under `sites`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedexp.core.documents import read_json_object
from fedexp.core.files import to_json, write_atomically
from fedexp.core.text import cleaned
from fedexp.run_folder.shapes import VERDICT, checked

DOCUMENT = "verdict.json"


def write_verdict(folder: Path, settings: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    """Keep the verdict of the run in `folder`, in place of an earlier one.

    The summary first: where verdict.json is there, nothing is done again.
    """
    summary = read_json_object(folder / "summary.json")
    known = summary.get("sites") or {}
    sites = {name: {**known.get(name, {}), **of_site} for name, of_site in _flat(verdict).items()}
    write_atomically(folder / "summary.json", to_json({**summary, "sites": sites}, indent=1))
    document = {"settings": dict(settings), **verdict}
    write_atomically(folder / DOCUMENT, to_json(document, indent=1))


def forget_verdict(folder: Path) -> None:
    """Take it away: it is about the last model, and the run goes on."""
    (folder / DOCUMENT).unlink(missing_ok=True)


def read_verdict(folder: Path) -> dict[str, Any] | None:
    """The verdict, with its `settings`; None if there is none.

    Raises:
        InputError: the file is no such document.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        return None
    document: dict[str, Any] = cleaned(checked(read_json_object(path), VERDICT, path))
    return document


def _flat(verdict: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By site: n, patients, the federation's figures with `_low` and `_high`, and what it gains."""
    found = {}
    for name, site in verdict["sites"].items():
        of_site = {key: site[key] for key in ("n", "patients", "trained_on")}
        for metric, (value, low, high) in site["roles"].get("federated", {}).items():
            of_site |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        for role in ("alone", "pooled", "fine-tuned"):
            if accuracy := site["roles"].get(role, {}).get("accuracy"):
                of_site[f"accuracy_{role.replace('-', '_')}"] = accuracy[0]
        if gain := site["gain"].get("federated"):
            value, low, high = gain
            of_site |= {"gain": value, "gain_low": low, "gain_high": high}
            of_site |= {"gains": is_above(low), "harmed": is_below(high)}
        of_site["estimate"] = verdict["patients"] != "own"
        found[name] = of_site
    return found


def is_above(low: float | None) -> bool:
    """Whether a difference is above 0 as far as can be told."""
    return low is not None and low > 0


def is_below(high: float | None) -> bool:
    """Whether a difference is below 0 as far as can be told."""
    return high is not None and high < 0
