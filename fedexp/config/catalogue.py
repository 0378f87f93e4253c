"""What can be chosen: the config groups and, for each choice, its one-line description.

Read from the YAML files as text, so that `fedexp list` answers at once.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedexp.core.checks import InputError, did_you_mean
from fedexp.core.text import printable_lines

HIDDEN = ("paths", "local", "hydra")


def groups(folders: list[Path]) -> dict[str, dict[str, str]]:
    """Group -> choice -> description, over all config folders; the first folder wins."""
    found: dict[str, dict[str, str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder).as_posix()
            if group == "." or group.split("/")[0] in HIDDEN or not path.is_file():
                continue
            found.setdefault(group, {}).setdefault(path.stem, description(path))
    return found


def description(path: Path) -> str:
    """The first comment of a YAML file that is not one of Hydra's (`# @package`); empty if none."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for line in file:
                if not line.startswith("#"):
                    break
                text = line.lstrip("# ").strip()
                if not text.startswith("@"):
                    return text
    except OSError as error:
        return f"(cannot be read: {error.strerror})"
    return ""


def stated_target(folders: list[Path], group: str, choice: str) -> str | None:
    """The `_target_` that a choice's YAML states, at its top or first; None: there is no such."""
    for folder in folders:
        path = folder / group / f"{choice}.yaml"
        if path.is_file():
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            at_its_top = re.search(r"^_target_:\s*(\S+)", text, re.MULTILINE)
            found = at_its_top or re.search(r"^ +_target_:\s*(\S+)", text, re.MULTILINE)
            return found[1] if found else None
    return None


def listing(folders: list[Path], group: str | None) -> str:
    """What `fedexp list [GROUP]` prints.

    Raises:
        InputError: there is no such group.
    """
    everything = groups(folders)
    if group is not None and group not in everything:
        raise InputError(
            f"{did_you_mean(group, everything)}Groups: {', '.join(everything)}", "GROUP", group
        )
    chosen = everything if group is None else {group: everything[group]}
    lines = []
    for name, choices in chosen.items():
        width = max(map(len, choices)) + 2
        lines.append(name)
        lines += [f"  {choice:<{width}}{text}" for choice, text in choices.items()]
        lines.append("")
    lines.append("Choose with group=choice, e.g. fedexp run partition=shards model=cnn")
    return printable_lines("\n".join(lines))
