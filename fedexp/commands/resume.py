"""`fedexp resume`: go on with a run that was stopped, or for more rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.config.folders import config_folders


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("resume", "Go on with a run that was stopped, from its newest checkpoint.")
    options.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    options.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="what changes no bit of the results: backend=NAME backend.workers=N tracker=NAME "
        "quiet=true paths.data_dir=FOLDER; or rounds=MORE than it had",
    )
    options.add_argument("--config-dir", help="a folder of configs of your own")
    given = options.parse_args(arguments)
    from fedexp.commands.resumption import resume
    from fedexp.commands.run import document_of

    config_folders(given.config_dir)  # which refuses one that is not there
    named = given.config_dir and Path(given.config_dir)
    folder = given.run_dir.absolute()  # for when the run is over
    text = resume(given.run_dir, given.overrides, named)
    answer(text, lambda: document_of(folder))
    return EXIT_OK
