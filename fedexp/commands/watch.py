"""`fedexp watch RUN_OR_SWEEP`: follow from its files what another process does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, final

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_FAILED, EXIT_OK, parser
from fedexp.commands.progress import Progress, looks, watched
from fedexp.core.checks import positive

EVERY = 1.0  # seconds


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code: 1 where what was watched did not come to a good end."""
    options = parser("watch", "Follow a run or a sweep from its files, until it is over.")
    options.add_argument("folder", metavar="RUN_OR_SWEEP", type=Path)
    options.add_argument("--once", action="store_true", help="say how far it is now, and end")
    options.add_argument(
        "--every", metavar="SECONDS", type=float, default=EVERY, help="default: %(default)s"
    )
    given = options.parse_args(arguments)
    positive(**{"--every": given.every})
    what = watched(given.folder)
    if given.once:
        last = what.look()
    else:
        view: View = Bar() if sys.stderr.isatty() else Lines()
        try:
            for last in looks(what, given.every):
                view.show(last)
        finally:
            view.close()
    document = {"schema": "progress/1", "folder": str(given.folder), **asdict(last)}
    answer(f"{last.status}: {last.text}", lambda: document)
    return EXIT_OK if last.status in ("running", "complete") else EXIT_FAILED


class View(Protocol):
    """Where somebody looks on."""

    def show(self, progress: Progress) -> None:
        """How far it is now."""

    def close(self) -> None:
        """Nothing more comes."""


@final
class Bar:
    """One bar on a terminal, wiped away in the end."""

    def __init__(self) -> None:
        from tqdm import tqdm

        shape = "{percentage:3.0f}% |{bar:20}| {desc}"
        self._bar: Any = tqdm(total=1, bar_format=shape, dynamic_ncols=True, leave=False)

    def show(self, progress: Progress) -> None:
        """Draw it anew."""
        self._bar.total = max(progress.total or progress.done, 1)
        self._bar.n = min(progress.done, self._bar.total)
        self._bar.set_description_str(progress.text)

    def close(self) -> None:
        """Wipe it away."""
        self._bar.close()


@final
class Lines:
    """A line whenever there is something new."""

    def __init__(self) -> None:
        self._before = ""

    def show(self, progress: Progress) -> None:
        """Print it; the last one is the answer."""
        if progress.text != self._before and not progress.is_over:
            print(progress.text, flush=True)
        self._before = progress.text

    def close(self) -> None:
        """Nothing to wipe away."""
