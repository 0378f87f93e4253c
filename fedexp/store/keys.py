"""What decides bits beside a config: code, versions, kernels, files. What is not known is not kept.

A result is kept only if all of it is known. Of what a config names, that is fedexp's own code and
torch's, code of the user's own whose source was read (`fedexp.config.origin`), and files, whose
content counts. Noise of the operating system's cannot be had twice, and a GPU's sums are not always
the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fedexp.config.declared import NOT_THE_USERS
from fedexp.config.origin import code_of_fedexp, kernels, processor, versions
from fedexp.core.origin import Origin
from fedexp.run_folder.format import PROVENANCE, WITHOUT_EFFECT


def digest(document: Any) -> str:
    """SHA-256 of a document of plain values.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def computed_with() -> dict[str, str]:
    """The code, the versions and the kernels of this process."""
    return {
        **versions(),
        "code": code_of_fedexp(),
        "processor": processor(),
        "kernels": kernels(),
        "threads": str(torch.get_num_threads()),
    }


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a resolved config that change bits, or which files a run leaves."""
    skipped = {*WITHOUT_EFFECT, *PROVENANCE} - {"checkpoint_every"}
    kept = {key: node for key, node in config.items() if key not in skipped}
    if config["backend"].get("own_bits"):
        kept["backend"] = config["backend"]
    kept["pre_aggregation"] = list(kept.get("pre_aggregation", {}).items())  # their order counts
    return kept


def is_known(config: Mapping[str, Any], origin: Origin | None = None) -> bool:
    """Whether two computations of the config give the same bits, for all that can be told.

    Args:
        config: resolved.
        origin: of the run, with the sources of the user's own code; None: nobody has looked.
    """
    leaves = list(_leaves(deciding(config)))
    own = _users_targets(deciding(config))
    read = {name.partition(".")[0] for name in (origin.sources if origin else ())}
    return (
        type(config["eval_every"]) is int  # by the clock: no two records are the same
        and config["device"] == "cpu"
        and not _users_targets(config["backend"])  # which may have bits of its own
        and (config.get("from") is None or origin is not None)  # whose weights it has looked at
        and all(value == "task" for key, value in leaves if key == "noise_seed")
        and all(target.partition(".")[0] in read for target in own)
    )


def _users_targets(node: Any) -> list[str]:
    """What a config builds of code that is neither fedexp's nor torch's."""
    targets = [str(value) for key, value in _leaves(node) if key == "_target_"]
    return [target for target in targets if not target.startswith(NOT_THE_USERS)]


def files_of(config: Mapping[str, Any]) -> dict[str, str]:
    """By name, the SHA-256 of the files that a config names beside its data."""
    found = {}
    for _, value in _leaves({k: v for k, v in deciding(config).items() if k != "dataset"}):
        if isinstance(value, str) and _is_file(path := Path(value).expanduser()):
            found[value] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no word that a file could be called
        return False


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _leaves(child, str(key))
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _leaves(child, name)
    else:
        yield name, node
