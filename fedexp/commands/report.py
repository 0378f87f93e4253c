"""`fedexp report`: tables and plots of runs and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.admission import refuse_unwritable
from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.core.plots import STYLES


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("report", "Print the figures of runs and sweeps, and draw their plots.")
    options.add_argument("folders", metavar="RUN_OR_SWEEP", nargs="+", type=Path)
    options.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="write there alone; by default into run folders and the folder of a sweep",
    )
    options.add_argument(
        "--force",
        action="store_true",
        help="also draw the runs of a sweep whose reports are there",
    )
    options.add_argument(
        "--also",
        metavar="FORMAT",
        choices=("pdf", "svg"),
        action="append",
        default=[],
        help="pdf or svg, for a paper: the pictures of what is named, beside their PNGs",
    )
    options.add_argument(
        "--style",
        choices=STYLES,
        default="screen",
        help="paper: as wide as a column, in letters that can be read there, without a heading",
    )
    given = options.parse_args(arguments)
    if given.out is not None:
        refuse_unwritable(given.out, "--out")
    from fedexp.commands.documents import of_folders
    from fedexp.reporting.report import report

    text = report(given.folders, given.out, given.force, given.also, given.style)
    answer(text, lambda: of_folders(given.folders))
    return EXIT_OK
