"""`fedexp leakage`: attack a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.config.folders import config_folders


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("leakage", "Attack a finished run: what do its updates and models leak?")
    options.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    options.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="leakage=NAME or leakage=[NAME,NAME] (see: fedexp list leakage), "
        "leakage.NAME.key=value for a study's own keys, paths.data_dir=FOLDER",
    )
    options.add_argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="keep the findings under another name, to have the study twice with other settings",
    )
    options.add_argument("--force", action="store_true", help="do again what is there already")
    options.add_argument("--config-dir", help="a folder of configs of your own")
    given = options.parse_intermixed_args(arguments)
    from fedexp.commands.documents import of_leakage
    from fedexp.commands.run import FoldersOfTheUser
    from fedexp.commands.studies import leak

    config_folders(given.config_dir)  # which refuses one that is not there
    FoldersOfTheUser.config_dir = given.config_dir and Path(given.config_dir)
    text = leak(given.run_dir, given.overrides, given.name, given.force)
    answer(text, lambda: of_leakage(given.run_dir))
    return EXIT_OK
