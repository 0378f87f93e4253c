"""`fedexp data check` and `fedexp data get`: the datasets on this machine, and a person's own."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.commands.arguments import EXIT_FAILED, EXIT_OK, parser, trusted
from fedexp.config.folders import config_folders

CHECKED = "a dataset, or a FOLDER or FILE of your own; dataset.KEY=VALUE as in a run"


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("data", "The datasets: which are there, and download.")
    actions = options.add_subparsers(dest="action", required=True, metavar="{check,get}")
    for action, text in (
        ("check", "which datasets are there, and what is in your own data"),
        ("get", "download datasets"),
    ):
        sub = actions.add_parser(action, help=text, description=text)
        named = CHECKED if action == "check" else "a dataset"
        sub.add_argument(
            "names", metavar="NAME", nargs="*" if action == "check" else "+", help=named
        )
        sub.add_argument("--data-dir", help="default: FEDEXP_DATA_DIR, else the user's cache")
        sub.add_argument("--config-dir", help="a folder of configs of your own")
    words, trust = trusted(arguments)
    settings = [word for word in words if word.startswith("dataset.") and "=" in word]
    given = options.parse_args([word for word in words if word not in settings])
    from fedexp.commands.datasets import Asked, check, get

    pairs = (word.removeprefix("dataset.").partition("=") for word in settings)
    asked = Asked(
        names=given.names,
        settings={key: value for key, _, value in pairs},
        folders=[folder / "dataset" for folder in config_folders(given.config_dir)],
        data_dir=given.data_dir,
        trust=trust,
    )
    act = check if given.action == "check" else get
    return EXIT_OK if act(asked) else EXIT_FAILED
