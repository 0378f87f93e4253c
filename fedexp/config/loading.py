"""The data of a run as loaded, and as the run takes it: long-tailed, cut to `train_examples`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fedexp.config.construction import Chosen
from fedexp.config.parts import Config, as_typed, prefixed
from fedexp.config.unvalidated import without_validation
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.protocols import ChecksData
from fedexp.core.rng import generator
from fedexp.data.folder import data_folder
from fedexp.data.imbalance import long_tailed
from fedexp.data.loader import load


@dataclass(frozen=True)
class Loaded:
    """The data before anybody holds any of them."""

    as_loaded: Dataset  # as they came from its loader
    dataset: Dataset  # of the run
    reserve: Split  # training examples left out by train_examples
    remarks: tuple[str, ...]


def load_data(config: Config, chosen: Chosen, given: Dataset | None = None) -> Loaded:
    """Load and cut.

    Args:
        config: resolved.
        chosen: the parts that the data must do for.
        given: data in the place of the config's own; they are neither made long-tailed nor cut.

    Raises:
        InputError: they cannot be loaded, or do not do for the task, a study or what chooses.
    """
    seed = config["seed"]
    limit = imbalance = None
    as_loaded = given
    if as_loaded is None:
        limit, imbalance = config["train_examples"], config["dataset"].get("imbalance")
        with prefixed("dataset"):
            as_loaded = load(chosen.loader, data_folder(config["paths"]["data_dir"]))
    attack = chosen.combination.attack
    unvalidated = without_validation(as_loaded, config, chosen.observers, attack)
    chosen.task.check(as_loaded.train.y, as_loaded.num_classes)
    dataset = as_loaded
    if imbalance is not None:
        of = config["dataset"].get("imbalance_of", "train")
        dataset = long_tailed(dataset, imbalance, generator(seed, "imbalance"), of)
    for study, carried_out in chosen.studies.items():
        if isinstance(carried_out, ChecksData):
            with as_typed(f"leakage.{study}", config["leakage"][study]):
                carried_out.check_data(dataset)
    dataset, reserve = _with_reserve(dataset, limit, seed)
    return Loaded(as_loaded, dataset, reserve, (*dataset.remarks, *unvalidated))


def _with_reserve(dataset: Dataset, wanted: int | None, seed: int) -> tuple[Dataset, Split]:
    """The data with only so many training examples, drawn at random, and those left out."""
    available = len(dataset.train)
    if wanted is not None and wanted > available:
        raise InputError(f"there are {available}", "train_examples", wanted)
    if wanted in (None, available):
        return dataset, dataset.train.rows(torch.empty(0, dtype=torch.int64))
    order = torch.from_numpy(generator(seed, "train_examples").permutation(available))
    kept, left_out = order[:wanted].sort().values, order[wanted:].sort().values
    return replace(dataset, train=dataset.train.rows(kept)), dataset.train.rows(left_out)
