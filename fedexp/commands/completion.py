"""What the Tab key offers; after `run`, Hydra knows all but the values in a list. Light."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedexp.config.catalogue import groups
from fedexp.config.folders import config_folders

OF_FOLDERS = ("resume", "rerun", "report", "leakage", "watch", "store")
ACTIONS = {"data": ("check", "get"), "detect": ("fit", "scan")}
Groups = Mapping[str, Mapping[str, str]]
OPTIONS = ("--multirun", "--dry-run", "--json", "--config-dir", "--cfg", "--help", "--hydra-help")
VALUES = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}
MULTIRUN = ("-m", "--multirun")
OPTION = re.compile(r"(?<= )(?:--config-dir|-cd)[ =]+(\S+) ")
OPTION_BEGUN = re.compile(r" (?:--config-dir|-cd) +\S*$")
LIST_BEGUN = re.compile(r"=\S*[\[,]\S*$")


def is_for_hydra(line: str) -> bool:
    """Whether the last word is one that Hydra completes."""
    _, command, *before, typed = line.split(" ")
    ours = OPTION_BEGUN.search(line) or LIST_BEGUN.search(line) or _of_an_option(before, typed)
    return command == "run" and not ours


def for_hydra(line: str) -> str:
    """The line as Hydra can read it: it knows none of our options, and dies of half a one.

    Hydra drops the first word only, the application's name. `--config-dir` is told it apart.
    """
    program, _, *before, typed = line.split(" ")
    known = [w for w in before if w in MULTIRUN or re.match(r"~|[^-].*=", w)]
    return " ".join([program, *known, typed])


def config_dir(line: str) -> str | None:
    """The folder that `--config-dir` names in a line; None where there is no such."""
    said = OPTION.search(line)
    folder = Path(said[1]).expanduser() if said else None
    return str(folder) if folder and folder.is_dir() else None


def completions(line: str) -> list[str]:
    """Everything that the last word may become.

    Args:
        line: so far: the program, its command, and what follows; it ends with the word that is
            being typed, empty after a space.
    """
    _, command, *before, typed = OPTION.sub("", line).split(" ")
    if OPTION_BEGUN.search(line):
        offers = _folders(typed)
    else:
        offers = _offers(command, before, typed, groups(config_folders(config_dir(line))))
    return [word for word in offers if word.startswith(typed)]


def _offers(command: str, before: Sequence[str], typed: str, known: Groups) -> list[str]:
    if command == "run" and _of_an_option(before, typed):
        return list(VALUES.get(before[-1], OPTIONS) if before else OPTIONS)
    if command == "run":
        return _in_a_list(typed, known)
    if command == "list":
        return _of_list(before, known)
    if command == "schema":
        from fedexp.commands.schema import names

        return names() if not before else []
    if command in ACTIONS and not before:
        return list(ACTIONS[command])
    if command == "data":
        return [*known["dataset"], *(_folders(typed) if before[0] == "check" else ())]
    if command == "leakage" and before:
        return [f"leakage={name}" for name in known["leakage"]]
    if command in OF_FOLDERS or command == "detect":
        return _folders(typed)
    return []


def _of_an_option(before: Sequence[str], typed: str) -> bool:
    """Whether the word that is being typed is an option of `run`, or the value of one."""
    return typed.startswith("-") or (bool(before) and before[-1] in VALUES)


def _of_list(before: Sequence[str], known: Groups) -> list[str]:
    if not before:
        return list(known)
    return list(known.get(before[0], ())) if len(before) == 1 else []


def _in_a_list(typed: str, known: Groups) -> list[str]:
    """What may follow in `model=mlp,` and `leakage=[dlg,`: the choices that are not there yet."""
    group, _, values = typed.partition("=")
    *there, begun = re.split(r"[\[,]", values)
    start = typed.removesuffix(begun)
    return [start + choice for choice in known.get(group, ()) if choice not in there]


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
