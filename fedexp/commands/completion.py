"""What the Tab key offers after a command other than `run`, which Hydra completes. Light."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedexp.config.catalogue import groups
from fedexp.config.folders import config_folders

OF_FOLDERS = ("resume", "rerun", "report", "leakage", "watch", "store")
ACTIONS = {"data": ("check", "get"), "detect": ("fit", "scan")}


def completions(words: Sequence[str]) -> list[str]:
    """Everything that the last word may become.

    Args:
        words: of the line so far: the program, its command, and what follows; the last one is the
            one that is being typed, empty after a space.
    """
    _, command, *before, typed = words
    return [word for word in _offers(command, before, typed) if word.startswith(typed)]


def _offers(command: str, before: Sequence[str], typed: str) -> list[str]:
    if command == "list":
        return _of_list(before)
    if command == "schema":
        from fedexp.commands.schema import names

        return names() if not before else []
    if command in ACTIONS and not before:
        return list(ACTIONS[command])
    if command == "data":
        return [*_groups()["dataset"], *(_folders(typed) if before[0] == "check" else ())]
    if command == "leakage" and before:
        return [f"leakage={name}" for name in _groups()["leakage"]]
    if command in OF_FOLDERS or command == "detect":
        return _folders(typed)
    return []


def _of_list(before: Sequence[str]) -> list[str]:
    if not before:
        return list(_groups())
    return list(_groups().get(before[0], ())) if len(before) == 1 else []


def _groups() -> dict[str, dict[str, str]]:
    return groups(config_folders())


def _folders(typed: str) -> list[str]:
    """Folders that begin so; one that is no run ends with a slash, as one may go on into it."""
    start = typed.rpartition("/")[0] + "/" if "/" in typed else ""
    try:
        found = sorted(p for p in Path(start or ".").iterdir() if p.is_dir())
    except OSError:
        return []
    return [
        f"{start}{path.name}{'' if (path / 'summary.json').is_file() else '/'}"
        for path in found
        if not path.name.startswith(".")
    ]
