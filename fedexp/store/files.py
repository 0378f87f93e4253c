"""A file that a study makes by training, kept in the store in use: a shadow, what a role answered.

Its maker says by a digest what decides it; here is added with what it was computed. Code of the
user's own is not known here, and what it decides is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedexp.core.text import number_of
from fedexp.store.entries import link
from fedexp.store.keys import computed_with, digest, files_of, is_known
from fedexp.store.use import in_use


def take_file(kind: str, config: Mapping[str, Any], made_of: str, path: Path) -> bool:
    """Write `path` as it was made before; False where it was not.

    Args:
        kind: what it is, in a word.
        config: resolved, what was trained.
        made_of: SHA-256 of all else that decides the file's content, its data among it.
        path: its place; its name is the same wherever it is made.
    """
    return is_known(config) and in_use().take(kind, _key(config, made_of), path.parent)


def leave_file(kind: str, config: Mapping[str, Any], made_of: str, path: Path) -> None:
    """Keep a file that was just made; arguments as in `take_file`."""
    if is_known(config):
        what = f"{kind} {path.stem}, {number_of(config['rounds'], 'round')}, seed {config['seed']}"
        in_use().leave(
            kind, _key(config, made_of), what, lambda place: link(path, place / path.name)
        )


def _key(config: Mapping[str, Any], made_of: str) -> str:
    return digest([made_of, files_of(config), computed_with()])
