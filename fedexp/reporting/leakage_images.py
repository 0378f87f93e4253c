"""Draws images that attacks recovered beside the true ones: of a run, and settings side by side.

All images of a picture lie on one pair of axes, each a unit wide, which is many times faster than
axes for each. Grey levels and colours are the pixels' own, from 0 to 1, never stretched.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from matplotlib.figure import Figure

from fedexp.reporting.figures import new_figure, short
from fedexp.reporting.glyphs import legible
from fedexp.reporting.results import Run
from fedexp.reporting.tables import Configuration
from fedexp.run_folder.findings import StudyRecord

_MOST_IMAGES = 12  # in a row
_MOST_ROWS = 40  # of a picture
_IMAGE = 0.78  # inches, the side of an image
_GAP = 0.08  # between images, in images
_BELOW = 0.27  # room for a caption under an image, in images
_OF_CLASSES = {
    "class_mean": "mean of the class's\ntraining images",
    "inverted": "inverted",
    "untrained": "control: model\nbefore training",
}


@final
@dataclass(frozen=True)
class _Row:
    """Images side by side."""

    name: str
    images: np.ndarray  # [n, C, H, W]
    captions: Sequence[str] = ()
    heading: str = ""  # above the row, of this row and those that follow


def update_inversion_figure(run: Run, study: StudyRecord) -> Figure | None:
    """Targets above what was reconstructed of them, with its PSNR: two rows for each round."""
    rounds = np.unique(array_of(study, "round"))
    rows = [row for round in rounds for row in _true_and_found(study, round, f"Round {round}")]
    if not rows:
        return None
    title = f"{study.name}: true images, and what updates gave away"
    return _images_figure(title, run.description, rows)


def model_inversion_figure(run: Run, study: StudyRecord) -> Figure | None:
    """Of each class the mean of its images, what the model's inversion shows, and a control."""
    rows = [
        _Row(name, study.arrays[key])
        for key, name in _OF_CLASSES.items()
        if len(array_of(study, key)) and len(array_of(study, "inverted"))
    ]
    if not rows:
        return None
    title = f"{study.name}: what the model shows of each class"
    return _images_figure(title, run.description, rows, _class_names(run, study))


def sweep_reconstructions_figure(groups: Sequence[Configuration], subtitle: str) -> Figure | None:
    """The targets once, and below them what every setting gave away of them."""
    blocks: dict[str, list[_Row]] = {}
    for label, _, study in _first_studies(groups, "reconstructions"):
        rounds = np.unique(array_of(study, "round"))
        for round in rounds:
            true, found = _true_and_found(study, round, "")
            key = f"{study.name}, round {round}"
            above = blocks.setdefault(key, [])
            if not above or not _same(_last_true(above), true.images):
                above.append(_Row("true", true.images, heading=key if not above else ""))
            above.append(_Row(label, found.images, found.captions))
    if not any(len(rows) > 2 for rows in blocks.values()):
        return None
    title = "What an update gives away of its images: PSNR by setting"
    subtitle = f"{subtitle} The first seed of each setting"
    return _images_figure(title, subtitle, [row for rows in blocks.values() for row in rows])


def sweep_classes_figure(groups: Sequence[Configuration], subtitle: str) -> Figure | None:
    """The mean of each class, and below it its picture from the model of every setting."""
    rows: list[_Row] = []
    names: list[str] = []
    for label, run, study in _first_studies(groups, "inverted"):
        if not rows and len(array_of(study, "class_mean")):
            rows.append(_Row(_OF_CLASSES["class_mean"], study.arrays["class_mean"]))
        own = dict(zip(_class_names(run, study), study.arrays["inverted"], strict=True))
        names = names or list(own)
        # A class that nobody trained on has no picture: white.
        white = np.ones_like(study.arrays["inverted"][0])
        rows.append(_Row(label, np.stack([own.get(name, white) for name in names])))
    if len(rows) < 3:
        return None
    title = "What the model of each setting shows of each class"
    subtitle = f"{subtitle} The first seed of each setting"
    return _images_figure(title, subtitle, rows, names)


def _images_figure(
    title: str, subtitle: str, rows: Sequence[_Row], columns: Sequence[str] = ()
) -> Figure:
    """All rows under each other; `columns` are named above the first."""
    if len(rows) > _MOST_ROWS:
        subtitle = f"{subtitle}. The first {_MOST_ROWS} of {len(rows)} rows."
        rows = rows[:_MOST_ROWS]
    across = min(_MOST_IMAGES, max(len(row.images) for row in rows))
    if any(len(row.images) > across for row in rows):
        subtitle = f"{subtitle}. The first {across} of each row."
    names = [
        row.name if "\n" in row.name else "\n".join(textwrap.wrap(row.name, 30)) for row in rows
    ]
    tops = _tops(rows)
    height = tops[-1] + 1 + _BELOW
    margin = 0.073 * max(len(line) for name in names for line in name.split("\n")) + 0.25
    width = max(across * (1 + _GAP) * _IMAGE + margin, 6.5)
    figure = new_figure(width, height * _IMAGE + 0.25, title, " ".join(subtitle.split()))
    axes = figure.subplots()
    for row, name, top in zip(rows, names, tops, strict=True):
        if row.heading:
            axes.text(0, top - 0.09, row.heading, va="bottom", fontsize=10.5, weight="bold")
        axes.text(-0.12, top + 0.5, name.replace("$", r"\$"), ha="right", va="center", fontsize=9.5)
        for column, image in enumerate(row.images[:across]):
            left = column * (1 + _GAP)
            axes.imshow(
                _colours(image),
                extent=(left, left + 1, top + 1, top),
                interpolation="nearest",
            )
            if column < len(row.captions):
                middle, below = left + 0.5, top + 1.04
                axes.text(middle, below, row.captions[column], ha="center", va="top", fontsize=8.5)
    for column, name in enumerate(columns[:across]):
        middle = column * (1 + _GAP) + 0.5
        axes.text(middle, tops[0] - 0.06, short(name, 12), ha="center", va="bottom", fontsize=9)
    axes.set_xlim(0, across * (1 + _GAP))
    axes.set_ylim(height, tops[0] - 0.3)
    axes.set_aspect("equal", anchor="W")
    axes.set_axis_off()
    return figure


def _tops(rows: Sequence[_Row]) -> list[float]:
    """Where every row begins, in images."""
    tops, at = [], 0.0
    for place, row in enumerate(rows):
        at += 0.35 if row.heading else 0.0
        tops.append(at)
        at += 1 + _GAP + (_BELOW if row.captions else 0.0)
        followed = place + 1 < len(rows) and rows[place + 1].heading
        at += 0.15 if followed else 0.0
    return tops


def _colours(image: np.ndarray) -> np.ndarray:
    """`[C, H, W]` of one channel or three as `[H, W, 3]`, within [0, 1]."""
    pixels = np.clip(np.moveaxis(image, 0, -1), 0, 1).astype(np.float64)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _true_and_found(study: StudyRecord, round: int, heading: str) -> tuple[_Row, _Row]:
    chosen = array_of(study, "round") == round
    true, found, psnr = (
        study.arrays[name][chosen] for name in ("targets", "reconstructions", "psnr_db")
    )
    captions = [f"{value:.1f} dB" for value in psnr]
    return _Row("true", true, heading=heading), _Row("reconstructed", found, captions)


def _last_true(rows: Sequence[_Row]) -> np.ndarray:
    return next(row.images for row in reversed(rows) if not row.captions)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one, other))


def _first_studies(
    groups: Sequence[Configuration], array: str
) -> Iterator[tuple[str, Run, StudyRecord]]:
    """Every study of the first complete run of each setting that kept `array`, with its label."""
    found = [
        (group, run, study)
        for group in groups
        for run in sorted(group.complete, key=lambda run: run.seed or 0)[:1]
        for study in run.leakage
        if len(array_of(study, array))
    ]
    several = len({study.name for _, _, study in found}) > 1
    for group, run, study in found:
        named = several and array == "inverted"
        yield f"{study.name}: {group.label}" if named else group.label, run, study


def _class_names(run: Run, study: StudyRecord) -> list[str]:
    classes = array_of(study, "classes")
    known = legible([str(name) for name in (run.partition or {}).get("class_names") or []])
    numbers = classes.tolist() if len(classes) else range(len(study.arrays["inverted"]))
    return [known[k] if k < len(known) else str(k) for k in numbers]


def array_of(study: StudyRecord, name: str) -> np.ndarray:
    """An array of a study, empty where it has none of that name."""
    return np.asarray(study.arrays.get(name, np.empty(0)))
