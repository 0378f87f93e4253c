"""`fedexp data check` and `fedexp data get`: the datasets on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.commands.arguments import EXIT_FAILED, EXIT_OK, parser
from fedexp.config.folders import config_folders


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("data", "The datasets: which are there, and download.")
    actions = options.add_subparsers(dest="action", required=True, metavar="{check,get}")
    for action, text in (("check", "which datasets are there"), ("get", "download datasets")):
        sub = actions.add_parser(action, help=text, description=text)
        sub.add_argument(
            "names",
            metavar="NAME",
            nargs="*" if action == "check" else "+",
            help="of a dataset; dataset.key=value behind it sets a key, such as dataset.size=64",
        )
        sub.add_argument("--data-dir", help="default: FEDEXP_DATA_DIR, else the user's cache")
    given = options.parse_args(arguments)
    from fedexp.commands.datasets import check, get

    folders = [folder / "dataset" for folder in config_folders()]
    act = check if given.action == "check" else get
    return EXIT_OK if act(folders, given.names, given.data_dir) else EXIT_FAILED
