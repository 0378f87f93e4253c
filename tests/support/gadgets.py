"""Code that a hostile run folder tries to have run: imported or called, it leaves a mark."""

import os
from pathlib import Path

MARK = "FEDEXP_TEST_MARK"


def run(*arguments: object, **named: object) -> None:
    """What must never happen."""
    Path(os.environ[MARK]).write_text("code of a run folder was run")
