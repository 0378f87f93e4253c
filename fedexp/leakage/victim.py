"""A finished run, opened again: its parts, its data, its models by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedexp.config.build import Built, build
from fedexp.config.origin import origin_of
from fedexp.config.schema import check_root_keys
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.core.partition import Partition
from fedexp.core.protection import Mechanism
from fedexp.core.protocols import Task
from fedexp.federation.rounds import Experiment
from fedexp.run_folder.checkpoints import Unreadable, read_checkpoint
from fedexp.run_folder.documents import read_config, read_summary
from fedexp.run_folder.format import PROVENANCE, accepted_hashes, backend_of_studies
from fedexp.run_folder.origin import refuse_other_origin


@dataclass(frozen=True)
class Victim:
    """What a study may look at. Data are float32 in their own unit throughout: pixels in [0, 1]."""

    folder: Path  # of the run; a study may keep files of its own in folder / "leakage" / its name
    config: Mapping[str, Any]  # resolved
    experiment: Experiment
    mechanism: Mechanism  # of its privacy, with the noise settled
    model: nn.Module  # the architecture; its weights are the initial ones
    task: Task  # what labels mean
    pixels: Dataset  # train is what the clients trained on, row for row as in `partition`
    reserve: Split  # training examples that nobody trained on (train_examples); may be empty
    normalisation: Normalisation
    partition: Partition
    models: Mapping[int, Tensor]  # round -> [d]: 0 is the initial model, the highest the final one
    seed: int
    device: torch.device  # that the run was trained on

    @classmethod
    def of(
        cls, folder: Path, config: Mapping[str, Any], built: Built, models: Mapping[int, Tensor]
    ) -> Victim:
        """What `built` was made of `config`, with the models that are left of its rounds."""
        return cls(
            folder=folder,
            config=config,
            experiment=built.experiment,
            mechanism=built.mechanism,
            model=built.model,
            task=built.task,
            pixels=built.dataset.as_floats(),
            reserve=built.reserve.as_floats(),
            normalisation=built.normalisation,
            partition=built.partition,
            models=models,
            seed=config["seed"],
            device=built.device,
        )

    @property
    def last_round(self) -> int:
        """The round of the final model."""
        return max(self.models)

    @property
    def as_it_ran(self) -> Victim:
        """With as many rounds as the run had: it may have stopped before the last one planned."""
        rounds = self.last_round or self.experiment.rounds
        return replace(self, experiment=replace(self.experiment, rounds=rounds))

    def round(self, name: str | int) -> int:
        """The number of a round that there is a model of: "initial", "last", or itself.

        Raises:
            InputError: there is none.
        """
        number = {"initial": 0, "last": self.last_round}.get(str(name), name)
        if number not in self.models:
            there = ", ".join(map(str, sorted(self.models)))
            raise InputError(f"models are there of rounds initial, last, {there}", "rounds", name)
        return int(number)

    @property
    def promise(self) -> Mapping[str, Any]:
        """What the run's record says about privacy; empty where it says nothing."""
        return read_summary(self.folder).get("privacy") or {}

    @property
    def held_out(self) -> Split:
        """Examples of the same kind that were not trained on: the reserve, else the test part."""
        return self.reserve if len(self.reserve) else self.pixels.test


def open_victim(
    folder: Path, data_dir: str | None, built: Built | None = None, trust: Sequence[str] = ()
) -> Victim:
    """A run's parts, built again from its config, and its models, read from its checkpoints.

    Args:
        folder: of the run.
        data_dir: where the data lie now, if not where they lay.
        built: the parts, if they are at hand: of the run's config, with its data.
        trust: packages whose code may be built, in place of what the run's config says of it.

    Raises:
        InputError: it is no run, has no checkpoint that can be read, or shares no model; or what
            it was made of is not there any more.
    """
    saved = read_config(folder)
    # Studies bring their own workers.
    config = {**saved, "backend": backend_of_studies(saved), "tracker": {}, "quiet": True}
    config["trust"] = list(trust)
    if data_dir is not None:
        config["paths"] = {**config["paths"], "data_dir": data_dir}
    check_root_keys({key: value for key, value in config.items() if key not in PROVENANCE})
    # Whatever attacks it now: what it was told to be attacked with may not go with it.
    built = built or build({**config, "leakage": {}})
    refuse_other_origin(folder, origin_of(config, built))  # who was a member would be another
    models = {0: built.experiment.setting.init(vector_of(built.model), built.experiment.n_clients)}
    if models[0].dim() != 1:
        raise InputError("its clients share no model (setting=local_only)", "RUN_DIR", folder)
    broken = ""
    for path in sorted((folder / "checkpoints").glob("*.pt")):
        try:
            state = read_checkpoint(path, accepted_hashes(saved)).state
        except Unreadable as error:
            broken = f"; {path.name} cannot be used: {error}"
            continue
        models[state.round] = state.params
    if len(models) == 1:
        raise InputError(f"has no checkpoint to attack{broken}", "RUN_DIR", folder)
    return Victim.of(folder, config, built, models)
