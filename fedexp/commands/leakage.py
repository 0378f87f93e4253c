"""`fedexp leakage`: attack a finished run, or a model that somebody else trained."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.config.folders import config_folders
from fedexp.core.checks import InputError

AS_FEDEXP = "fedexp"  # --scale, where none is given
OVERRIDES = (
    "leakage=NAME or leakage=[NAME,NAME] (see: fedexp list leakage), leakage.NAME.key=value for a "
    "study's own keys, paths.data_dir=FOLDER; of a file of weights also dataset=NAME, "
    "train_examples=N, seed=N"
)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    if arguments[:1] == ["compare"]:
        return _compare(arguments[1:])
    options = parser("leakage", "Attack a finished run: what do its updates and models leak?")
    options.add_argument(
        "run_dir",
        metavar="RUN_DIR",
        type=Path,
        help="or a file of weights (.pth, .pt, .safetensors); `compare A B`: two side by side",
    )
    options.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=OVERRIDES)
    options.add_argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="keep the findings under another name, to have the study twice with other settings",
    )
    options.add_argument("--force", action="store_true", help="do again what is there already")
    options.add_argument("--config-dir", help="a folder of configs of your own")
    _of_files(options)
    options.add_argument("--out", metavar="FOLDER", type=Path, help="of a file: for the findings")
    given = options.parse_intermixed_args(arguments)
    if given.run_dir.is_dir():
        _refuse(given, ("model", "members", "scale", "out"), "a file of weights", "a folder")
    if given.run_dir.is_file() or given.model is not None:
        _refuse(given, ("name", "config_dir"), "a run", "no run's folder")
        from fedexp.commands.documents import of_attacked
        from fedexp.commands.model_files import attack_file
        from fedexp.reporting.leakage import studies_report

        attacked = attack_file(
            given.run_dir,
            given.overrides,
            given.model,
            given.members,
            AS_FEDEXP if given.scale is None else given.scale,
            given.out,
            given.force,
        )
        assumed = (f"Assumed: {sentence}." for sentence in attacked.said)
        told = "\n".join([studies_report(attacked.studies)[1], *assumed])
        answer(told, lambda: of_attacked(attacked))
        return EXIT_OK
    from fedexp.commands.documents import of_leakage
    from fedexp.commands.hydra_setup import FoldersOfTheUser
    from fedexp.commands.studies import leak

    config_folders(given.config_dir)  # which refuses one that is not there
    FoldersOfTheUser.config_dir = given.config_dir and Path(given.config_dir)
    text = leak(given.run_dir, given.overrides, given.name, given.force)
    answer(text, lambda: of_leakage(given.run_dir))
    return EXIT_OK


def _of_files(options: argparse.ArgumentParser) -> None:
    options.add_argument("--model", metavar="NAME", help="of a file: which model, e.g. mlp")
    options.add_argument(
        "--members",
        metavar="train|FILE",
        help="of a file: who was trained on, the dataset's training part as fedexp deals it, or "
        "its rows in a text file, a number a line from 0",
    )
    options.add_argument(
        "--scale",
        metavar="fedexp|none|MEAN,DEVIATION",
        help="of a file: how its pixels in [0, 1] were scaled (default: by the training part's)",
    )


def _refuse(given: argparse.Namespace, names: Sequence[str], whose: str, what: str) -> None:
    """Raise InputError for an option that would have no effect."""
    paths = [given.run_dir] if "run_dir" in given else [given.first, given.second]
    for name in names:
        if (value := getattr(given, name)) is not None:
            option = {"name": "--as"}.get(name, f"--{name.replace('_', '-')}")
            reason = f"is of {whose}, and {' and '.join(map(str, paths))} is {what}"
            raise InputError(reason, option, value)


def _compare(arguments: Sequence[str]) -> int:
    options = parser("leakage compare", "Two runs or files of weights, attacked alike.")
    options.add_argument("first", metavar="A", type=Path, help="a run's folder, or a file")
    options.add_argument("second", metavar="B", type=Path, help="a run's folder, or a file")
    options.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=OVERRIDES)
    options.add_argument("--force", action="store_true", help="do again what is there already")
    _of_files(options)
    options.add_argument("--model-b", metavar="NAME", help="of B, if it is another model than A")
    given = options.parse_intermixed_args(arguments)
    if not (given.first.is_file() or given.second.is_file()):
        _refuse(given, ("model", "model_b", "members", "scale"), "a file of weights", "none")
    from fedexp.commands.comparison import compare, side_by_side
    from fedexp.commands.documents import of_comparison

    a, b = compare(
        (given.first, given.second),
        given.overrides,
        (given.model, given.model_b or given.model),
        given.members,
        AS_FEDEXP if given.scale is None else given.scale,
        given.force,
    )
    answer(side_by_side(a, b), lambda: of_comparison(a, b))
    return EXIT_OK
