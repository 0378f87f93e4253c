"""`fedexp report`: tables and plots of runs and sweeps, made anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.arguments import EXIT_OK, parser


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("report", "Print the figures of runs and sweeps, and draw their plots anew.")
    options.add_argument("folders", metavar="RUN_OR_SWEEP", nargs="+", type=Path)
    folders = options.parse_args(arguments).folders
    from fedexp.reporting.report import report

    print(report(folders))
    return EXIT_OK
