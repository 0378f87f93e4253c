"""What the commands read their arguments with. Light: a mistake is answered at once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedexp.core.checks import InputError

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and leaves the usage to --help.

    Half an option is none: `--empt` emptied a store. A path must have a name: `Path("")`, of a
    variable that a script forgot, is the current folder.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{message} (see: {self.prog} --help)")


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("must name a file or a folder (. is the current one)")
    return Path(text)


def trusted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line without `trust=[...]`, and the packages that it names.

    Raises:
        InputError: it is no list.

    >>> trusted(["digits", "trust=[mine.,yours]"])
    (['digits'], ['mine.', 'yours'])
    """
    kept, packages = [], []
    for word in words:
        if not word.startswith("trust="):
            kept.append(word)
            continue
        found = re.fullmatch(r"\[(.*)\]", word.removeprefix("trust=").strip())
        if found is None:
            reason = "must be a list of packages, such as trust=[mypackage.]"
            raise InputError(reason, "trust", word.removeprefix("trust="))
        packages += [package.strip(" '\"") for package in found[1].split(",") if package.strip()]
    return kept, packages


def parser(command: str, description: str) -> Parser:
    """The parser of `fedexp COMMAND`."""
    return Parser(prog=f"fedexp {command}", description=description)
