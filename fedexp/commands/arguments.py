"""What the commands read their arguments with. Light: a mistake is answered at once."""

from __future__ import annotations

import argparse
from typing import NoReturn

from fedexp.core.checks import InputError

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{message} (see: {self.prog} --help)")


def parser(command: str, description: str) -> Parser:
    """The parser of `fedexp COMMAND`."""
    return Parser(prog=f"fedexp {command}", description=description)
