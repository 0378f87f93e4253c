"""The command `fedexp`: a thin door. Nothing heavy is imported before a subcommand needs it."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from fedexp import __version__
from fedexp.config.folders import config_folders
from fedexp.core.checks import InputError, did_you_mean
from fedexp.core.interrupt import Terminated, sigterm_as_interrupt

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2
EXIT_INTERRUPTED, EXIT_NO_READER, EXIT_TERMINATED = 130, 141, 143

HELP = """\
fedexp: an experiment runner for federated learning

  fedexp run [key=value ...]          train; every part can be chosen and every value changed
  fedexp run -m key=a,b [...]         a sweep: every combination, one table at the end
  fedexp resume RUN_DIR [key=value]   go on with a run that was stopped
  fedexp report RUN_OR_SWEEP ...      tables and plots of what is there, made anew
  fedexp leakage RUN_DIR leakage=NAME attack a finished run: what do its updates and models leak?
  fedexp detect fit FOLDER --out FILE learn from files what honest updates look like
  fedexp detect scan FOLDER ...       score files of updates, flag the suspicious ones
  fedexp privacy --delta D ...        on paper: epsilon of planned training, or the noise it needs
  fedexp list [GROUP]                 what can be chosen, one line each
  fedexp data check                   which datasets are there
  fedexp data get NAME ...            download datasets
  fedexp --version

fedexp run alone trains ten clients on scikit-learn's digits, without a network.
fedexp run --help shows the config groups and every default.
"""


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):  # a C locale has no letter for every path
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Carry out one command line; the exit code."""
    try:
        with sigterm_as_interrupt():
            code = _dispatch(list(arguments))
        sys.stdout.flush()  # here, where a reader that has gone is dealt with, not at the very end
        return code
    except InputError as error:
        return _refuse(str(error))
    except Terminated:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO_READER
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}")


def _refuse(reason: str) -> int:
    print(f"fedexp: {' '.join(reason.splitlines())}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _dispatch(arguments: list[str]) -> int:
    try:
        return _command(arguments)
    except SystemExit as end:  # argparse and Hydra end so, with a number or nothing
        return int(end.code or EXIT_OK)


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return EXIT_OK
    if arguments[0] == "--version":
        print(f"fedexp {__version__}")
        return EXIT_OK
    commands: dict[str, Callable[[list[str]], int]] = {
        "run": _run,
        "resume": _resume,
        "report": _report,
        "leakage": _leakage,
        "detect": _detect,
        "privacy": _privacy,
        "list": _list,
        "data": _data,
    }
    if arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    if arguments[0] in ("-sc", "--shell-completion"):
        return _complete(arguments, list(commands))
    if "=" in arguments[0] or arguments[0].startswith("-"):
        return _run(arguments)
    raise InputError(
        f"{did_you_mean(arguments[0], commands)}Commands: {', '.join(commands)}",
        "command",
        arguments[0],
    )


def _run(arguments: list[str]) -> int:
    from fedexp.commands import run as launch

    launch.start(arguments)
    return EXIT_OK


def _complete(arguments: list[str], commands: list[str]) -> int:
    """Shell completion: Hydra's, for what comes after `fedexp run`."""
    query = any(a.startswith("query=") for a in arguments)
    words = os.environ.get("COMP_LINE", "").split(" ")
    if query and len(words) <= 2:
        print(" ".join(c for c in commands if c.startswith(words[-1])))
        return EXIT_OK
    if query and words[1] != "run":
        return EXIT_OK
    if query:  # Hydra drops the first word only: the application's name
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    from fedexp.commands import run as launch

    launch.start(arguments)
    return EXIT_OK


def _resume(arguments: list[str]) -> int:
    parser = _parser("resume", "Go on with a run that was stopped, from its newest checkpoint.")
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="what changes no bit of the results: backend=NAME backend.workers=N quiet=true "
        "paths.data_dir=FOLDER",
    )
    parsed = parser.parse_args(arguments)
    from fedexp.commands.resume import resume

    if text := resume(parsed.run_dir, parsed.overrides):
        print(text)
    return EXIT_OK


def _report(arguments: list[str]) -> int:
    parser = _parser("report", "Print the figures of runs and sweeps, and draw their plots anew.")
    parser.add_argument("folders", metavar="RUN_OR_SWEEP", nargs="+", type=Path)
    parsed = parser.parse_args(arguments)
    from fedexp.reporting.report import report

    print(report(parsed.folders))
    return EXIT_OK


def _leakage(arguments: list[str]) -> int:
    parser = _parser("leakage", "Attack a finished run: what do its updates and models leak?")
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="leakage=NAME or leakage=[NAME,NAME] (see: fedexp list leakage), "
        "leakage.NAME.key=value for a study's own keys, paths.data_dir=FOLDER",
    )
    parser.add_argument(
        "--as",
        dest="name",
        metavar="NAME",
        help="keep the findings under another name, to have the study twice with other settings",
    )
    parser.add_argument("--force", action="store_true", help="do again what is there already")
    parsed = parser.parse_intermixed_args(arguments)
    from fedexp.commands.leakage import leak

    print(leak(parsed.run_dir, parsed.overrides, parsed.name, parsed.force))
    return EXIT_OK


def _privacy(arguments: list[str]) -> int:
    parser = _parser("privacy", "What training would cost, on paper: epsilon, or the noise for it.")
    number, whole = {"type": float}, {"type": int}
    for option, kind, letter, meaning in (
        ("--delta", number, "D", "of the guarantee; below 1/n of what is protected"),
        ("--noise-multiplier", number, "Z", "noise on a sum, in units of the clip norm"),
        ("--target-epsilon", number, "EPSILON", "asks for the noise, in place of Z"),
        ("--sample-rate", number, "Q", "probability of taking part in a step"),
        ("--steps", whole, "T", "how many steps (rounds, where clients are protected)"),
        ("--examples", whole, "N", "with --batch-size, in place of --sample-rate"),
        ("--batch-size", whole, "B", "expected size of a batch"),
        ("--epochs", whole, "E", "in place of --steps"),
    ):
        parser.add_argument(
            option, metavar=letter, help=meaning, required=option == "--delta", **kind
        )
    parser.add_argument(
        "--sampling", default="poisson", help="poisson, shuffled or fixed (default: %(default)s)"
    )
    options = vars(parser.parse_args(arguments))
    from fedexp.commands.privacy import answer

    print(answer(**options))
    return EXIT_OK


def _detect(arguments: list[str]) -> int:
    parser = _parser("detect", "Malicious updates among files: fit a detector, scan a folder.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="{fit,scan}")
    for action, text in (
        ("fit", "Learn from files what honest updates look like."),
        ("scan", "Score every file, and flag the suspicious ones; ends with 1 if some are broken."),
    ):
        sub = actions.add_parser(action, help=text, description=text)
        sub.add_argument(
            "folder",
            metavar="UPDATES_DIR",
            type=Path,
            help="a run made with record_updates, or a folder of .safetensors, .pth or .pt files "
            "with a state dict of local minus global model each",
        )
        sub.add_argument(
            "--global",
            dest="baseline",
            metavar="MODEL",
            type=Path,
            help="the files hold whole local models, trained from this one",
        )
        if action == "fit":
            _fit_options(sub)
        else:
            _scan_options(sub)
    options = vars(parser.parse_args(arguments))
    from fedexp.commands import detect

    if options.pop("action") == "fit":
        detect.fit(**options)
        return EXIT_OK
    return EXIT_OK if detect.scan(**options) else EXIT_FAILED


def _fit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        metavar="DETECTOR",
        type=Path,
        required=True,
        help="the file to write; holds numbers and words, no code",
    )
    parser.add_argument(
        "--scorer",
        choices=("autoencoder", "norm", "pca"),
        default="autoencoder",
        help="what is learned (default: %(default)s)",
    )
    parser.add_argument(
        "--quantile",
        type=float,
        default=0.99,
        help="share of honest updates to stay below the threshold (default: %(default)s)",
    )
    parser.add_argument(
        "--sketch",
        type=int,
        help="numbers that an update is made into first (default: as in a run with detector=)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--include-malicious",
        action="store_true",
        help="fit also on the updates that index.csv marks as malicious",
    )
    parser.add_argument("--force", action="store_true", help="replace DETECTOR if it is there")


def _scan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detector",
        metavar="DETECTOR",
        type=Path,
        required=True,
        help="the file that fedexp detect fit wrote",
    )
    parser.add_argument(
        "--threshold",
        metavar="X",
        type=float,
        help="flag scores above X (default: the detector's threshold)",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="for scores.csv and histogram.png (default: scan-of-UPDATES_DIR beside DETECTOR)",
    )


def _list(arguments: list[str]) -> int:
    parser = _parser("list", "What can be chosen, one line each.")
    parser.add_argument("group", metavar="GROUP", nargs="?")
    parsed = parser.parse_args(arguments)
    from fedexp.config.catalogue import listing

    print(listing(config_folders(), parsed.group))
    return EXIT_OK


def _data(arguments: list[str]) -> int:
    parser = _parser("data", "The datasets: which are there, and download.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="{check,get}")
    for action, text in (("check", "which datasets are there"), ("get", "download datasets")):
        sub = actions.add_parser(action, help=text, description=text)
        sub.add_argument("names", metavar="NAME", nargs="*" if action == "check" else "+")
        sub.add_argument("--data-dir", help="default: FEDEXP_DATA_DIR, else the user's cache")
    parsed = parser.parse_args(arguments)
    from fedexp.commands.data import check, get

    folders = [folder / "dataset" for folder in config_folders()]
    act = check if parsed.action == "check" else get
    return EXIT_OK if act(folders, parsed.names, parsed.data_dir) else EXIT_FAILED


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see: {self.prog} --help)")


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return _Parser(prog=f"fedexp {command}", description=description)
