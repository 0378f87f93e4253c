"""A model that somebody else trained, as a victim: a file of weights, and what is said of it.

A state dict does not say what it was trained on, nor how pixels were scaled. Both are said by who
asks: which rows of a dataset's training part are its members, and the scale; what is not said is
assumed and told. There is no run, so a study that looks at anything but a model is refused: those
that do not declare `of_a_model_alone`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch

from fedexp.config.build import Built, build
from fedexp.config.weights import Start, starting_point
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.leakage.victim import Victim

TRAIN = "train"  # members: the dataset's training part as fedexp deals it
AS_FEDEXP = "fedexp"  # scale: mean 0 and deviation 1 by the training part
RAW = "none"  # scale: pixels in [0, 1]
MOST_ROWS_BYTES = 2**26
KEY = "MODEL_FILE"


@runtime_checkable
class OfAModelAlone(Protocol):
    """A study that looks at a model and at data, and at nothing else of a run."""

    of_a_model_alone: bool


@runtime_checkable
class AsksForMembers(Protocol):
    """A study whose figures mean nothing where nobody says who the members are."""

    asks_for_members: bool


def check_study(name: str, study: object, members: str | None) -> None:
    """Raise InputError for a study that needs a run, or members that nobody named."""
    if not (isinstance(study, OfAModelAlone) and study.of_a_model_alone):
        raise InputError(
            "needs a run: how its clients trained and what they sent; of a file of weights "
            "model_inversion and loss_threshold can be asked",
            "leakage",
            name,
        )
    if members is None and isinstance(study, AsksForMembers) and study.asks_for_members:
        raise InputError(
            "say who was trained on: --members train (the dataset's training part as fedexp deals "
            "it), or a file with a row number a line",
            "--members",
            "",
        )


@final
@dataclass(frozen=True)
class ModelFile:
    """A file of weights as it is asked about.

    Args:
        path: .pth, .pt or .safetensors.
        members: "train", a text file with row numbers of the training part, or None: not said.
        scale: "fedexp", "none", or (mean, deviation).
    """

    path: Path
    members: str | None
    scale: str | tuple[float, float]

    def victim(self, config: Mapping[str, Any], folder: Path) -> Victim:
        """The model with the data of `config`; round 0 is an untrained one, round 1 the file's.

        Raises:
            InputError: the file cannot be used, or is of another model; or the rows are none.
        """
        named = {**config, "model": {**config["model"], "weights": str(self.path)}}
        start = _of_file(named)
        built = build(dict(config))
        model = copy.deepcopy(built.model)
        if said := start.prepare(model):
            where = said[0].rpartition(": ")[2]  # a head of another shape is no head of this model
            raise InputError(f"its weights are those of another model: {where}", KEY, self.path)
        models = {0: vector_of(built.model), 1: vector_of(model)}
        victim = Victim.of(folder, config, built, models)
        return self._with_members(replace(victim, normalisation=self._normalisation(built)))

    def assumptions(self) -> list[str]:
        """What was taken for true of the file, in sentences."""
        who = {
            None: "nobody said who was trained on: the dataset's training part is taken for it",
            TRAIN: "members are the dataset's training part, as it was said",
        }.get(self.members, f"members are the rows of {self.members}, as it was said")
        how = {
            AS_FEDEXP: "pixels are scaled to mean 0 and deviation 1 by the training part, as "
            "fedexp does (--scale none or MEAN,DEVIATION says otherwise)",
            RAW: "pixels are in [0, 1], as it was said",
        }.get(str(self.scale), f"pixels are scaled by (mean, deviation) {self.scale}, as was said")
        return [who, how]

    def _normalisation(self, built: Built) -> Normalisation:
        if self.scale == AS_FEDEXP:
            return built.normalisation
        mean, deviation = (0.0, 1.0) if isinstance(self.scale, str) else self.scale
        like = built.normalisation.mean
        return Normalisation(torch.full_like(like, mean), torch.full_like(like, deviation))

    def _with_members(self, victim: Victim) -> Victim:
        if self.members in (None, TRAIN):
            return victim
        train = victim.pixels.train
        rows = _rows(Path(str(self.members)), len(train))
        others = np.setdiff1d(np.arange(len(train)), rows)
        shards = (np.arange(len(rows)),)
        return replace(
            victim,
            pixels=replace(victim.pixels, train=_picked(train, rows)),
            reserve=_picked(train, others),
            partition=replace(victim.partition, train=_picked(train, rows), shards=shards),
        )


def _of_file(config: Mapping[str, Any]) -> Start:
    try:
        return replace(starting_point(dict(config)), key=KEY)
    except InputError as error:
        raise InputError(error.reason, KEY, error.value) from error


def _picked(part: Split, rows: np.ndarray) -> Split:
    return part.rows(torch.from_numpy(rows))


def _rows(path: Path, n: int) -> np.ndarray:
    """Distinct row numbers from 0, one a line, sorted."""
    try:
        if path.stat().st_size > MOST_ROWS_BYTES:
            raise ValueError("it is too large")
        rows = np.array(sorted({int(line) for line in path.read_text().split()}), dtype=np.int64)
    except (OSError, ValueError) as error:
        reason = f'must be "train", or a file with a row number a line ({error})'
        raise InputError(reason, "--members", path) from None
    if not len(rows) or rows[0] < 0 or rows[-1] >= n:
        raise InputError(f"must hold row numbers from 0 to {n - 1}", "--members", path)
    return rows
