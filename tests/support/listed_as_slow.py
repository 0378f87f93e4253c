"""Which tests are slow by measurement: those of `tests/slow.txt`, beside the ones marked by hand.

The default suite is to take three minutes on two cores. What takes longer than a second or two
(pools that are started, calibrations, whole sweeps) is listed, a test a line, and marked slow;
`--also-listed` runs it all the same. `python scripts/slow_tests.py LOG` writes the list anew from
what `pytest --durations=0 -vv --also-listed` said.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "slow.txt"
COLLECTED = pytest.StashKey[frozenset[str]]()
"""The ids of all that was collected, before a marker or a word leaves out some of it."""


def listed() -> frozenset[str]:
    """The tests' ids."""
    lines = LIST.read_text(encoding="utf-8").splitlines() if LIST.is_file() else []
    return frozenset(line for line in lines if line and not line.startswith("#"))


def mark(items: list[pytest.Item]) -> None:
    """Mark what is listed."""
    slow = listed()
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)


def gone(collected: frozenset[str]) -> list[str]:
    """What is listed and is there no longer; of files that were not collected, their tests are."""
    files = {test.partition("::")[0] for test in collected}
    return sorted(
        test
        for test in listed() - collected
        if (file := test.partition("::")[0]) in files or not (ROOT / file).is_file()
    )
