"""`fedexp detect fit` and `fedexp detect scan`: a detector for update files, from anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedexp.commands.arguments import EXIT_FAILED, EXIT_OK, parser


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("detect", "Malicious updates among files: fit a detector, scan a folder.")
    actions = options.add_subparsers(dest="action", required=True, metavar="{fit,scan}")
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
    given = vars(options.parse_args(arguments))
    from fedexp.commands import detection

    if given.pop("action") == "fit":
        detection.fit(**given)
        return EXIT_OK
    return EXIT_OK if detection.scan(**given) else EXIT_FAILED


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
