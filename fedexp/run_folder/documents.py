"""The two small documents of a run folder that more than its record read and write.

`config.yaml`, which makes a folder a run folder, and `summary.json`. Neither needs torch, so that
who only looks at what was said starts at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fedexp.core.checks import InputError, refuse_no_folder
from fedexp.core.documents import DOCUMENT_BYTES, parse_json, read_text, read_yaml_mapping
from fedexp.core.files import to_json, write_atomically
from fedexp.core.renames import present_config
from fedexp.run_folder.format import PROVENANCE, config_hash_0_1
from fedexp.run_folder.shapes import CONFIG, checked


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of a run folder; InputError if it is none."""
    refuse_no_folder(folder, "RUN_DIR")
    path = folder / "config.yaml"
    if not path.is_file():
        reason = "is not a run folder (it has no config.yaml)"
        if (folder / "multirun.yaml").is_file():
            reason = "is a sweep's folder; name that of a run in it"
        raise InputError(reason, "RUN_DIR", folder)
    saved = checked(read_yaml_mapping(path), CONFIG, path)
    if not saved:
        raise InputError("its config.yaml is broken", "RUN_DIR", folder)
    _refuse_interpolations({k: v for k, v in saved.items() if k not in PROVENANCE}, path)
    present = present_config(saved)
    # Its checkpoints know the config as it was.
    return saved if present == saved else {**present, "saved_as": config_hash_0_1(saved)}


def _refuse_interpolations(node: Any, path: Path) -> None:
    """A run's config is written resolved: who reads one resolves nothing (`${oc.env:...}`)."""
    if isinstance(node, Mapping):
        for value in node.values():
            _refuse_interpolations(value, path)
    elif isinstance(node, list):
        for value in node:
            _refuse_interpolations(value, path)
    elif isinstance(node, str) and "${" in node:
        raise InputError(f"holds {node[:60]!r}, which no run writes", "file", path)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Replace `config.yaml`, which makes a folder a run folder."""
    text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    write_atomically(folder / "config.yaml", text.encode())


def read_summary(folder: Path) -> dict[str, Any]:
    """`summary.json`, or an empty dict where there is none."""
    path = folder / "summary.json"
    try:
        summary = parse_json(read_text(path, DOCUMENT_BYTES))
    except InputError:
        raise
    except (FileNotFoundError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def write_summary(folder: Path, summary: Mapping[str, Any], durable: bool = True) -> None:
    """Replace `summary.json`; NaN and infinity become null, which JSON can say.

    `durable` as for `write_atomically`: what a run that goes on says is told anew every round.
    """
    write_atomically(folder / "summary.json", to_json(summary, indent=1), durable)
