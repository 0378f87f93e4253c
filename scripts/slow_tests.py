r"""Write tests/slow.txt anew: the tests that took longer than a limit, from pytest's own durations.

    pytest -n 2 -m "not slow and not network and not documents" \
        --also-listed --durations=0 -vv > LOG
    python scripts/slow_tests.py LOG [--seconds 1.5]

A fixture's time counts for the test that it was made for. Run on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

LIST = Path(__file__).resolve().parent.parent / "tests" / "slow.txt"
LINE = re.compile(r"^\s*(?P<seconds>[\d.]+)s (?P<what>call|setup|teardown)\s+(?P<test>\S.*?)\s*$")


def durations(log: str) -> dict[str, float]:
    """Seconds of each test, from the text of a run with `--durations=0`."""
    found: dict[str, float] = defaultdict(float)
    for line in log.splitlines():
        if match := LINE.match(line):
            found[match["test"]] += float(match["seconds"])
    return dict(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--seconds", type=float, default=1.5)
    arguments = parser.parse_args()
    found = durations(arguments.log.read_text(encoding="utf-8", errors="replace"))
    if not found:
        parser.error(f"{arguments.log} has no durations: run pytest with --durations=0")
    slow = sorted(test for test, seconds in found.items() if seconds > arguments.seconds)
    head = [
        f"# Tests that took longer than {arguments.seconds:g} s: marked slow, see",
        "# tests/support/listed_as_slow.py. Written by scripts/slow_tests.py.",
    ]
    LIST.write_text("\n".join([*head, *slow, ""]), encoding="utf-8")
    total, listed = sum(found.values()), sum(found[test] for test in slow)
    print(f"{len(slow)} tests listed, {listed:.0f} of {total:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
