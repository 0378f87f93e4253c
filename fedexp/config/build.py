"""From a resolved config to an `Experiment`; Hydra ends here and in `parts`.

`build` is the one place where a run is put together, each step in a file of its own: construct the
parts, refuse what does not go together, load, deal out, protect, hand to the workers. Everything a
user can get wrong is found before any training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from fedexp.config.adversary import attended, judge, poisoned, remarks_on_poison
from fedexp.config.assumption import remark_on_none
from fedexp.config.clients import clients_of, partitioned
from fedexp.config.cohort_rehearsal import rehearse_cohort
from fedexp.config.construction import Chosen, construct
from fedexp.config.evaluated import evaluated
from fedexp.config.initial_model import initial_model
from fedexp.config.lineage import Lineage, lineage_of
from fedexp.config.loading import load_data
from fedexp.config.pace import pace_of, pace_remarks
from fedexp.config.parts import Config
from fedexp.config.protection import protect, unprotected
from fedexp.config.refusals import refuse, remarks
from fedexp.config.rehearsal import rehearse
from fedexp.config.root_keys import check_root
from fedexp.config.tried_alone import refuse_memory_of_others
from fedexp.config.weights import head_columns, starting_point
from fedexp.config.workload import clients_examples, with_shards_behind
from fedexp.core.capabilities import (
    communicates,
    does_nothing,
    has_own_bits,
    of_head,
    root_examples,
)
from fedexp.core.checks import InputError, one_of
from fedexp.core.cohort import drawn
from fedexp.core.devices import repeatable
from fedexp.core.examples import Dataset, Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation, normalisation_of
from fedexp.core.objective import remark_on
from fedexp.core.observer import Observer
from fedexp.core.own_code import own_code_named
from fedexp.core.partition import Partition
from fedexp.core.protection import Combination, Mechanism, Plan, Refuses
from fedexp.core.protocols import Backend, Task
from fedexp.core.rng import generator
from fedexp.core.round_model import Architecture
from fedexp.core.shards import sizes_of
from fedexp.core.text import called
from fedexp.core.types import row_size
from fedexp.core.workload import Workload
from fedexp.federation.gather import gather_of, refuse_too_many_rows
from fedexp.federation.own_patients import OwnPatients
from fedexp.federation.own_rows import held_to_its_word
from fedexp.federation.rounds import Experiment
from fedexp.federation.server import Server
from fedexp.partition.check import patients_apart, refuse_shared_rows


@dataclass(frozen=True)
class Built:
    """An experiment and what its record needs beside it."""

    experiment: Experiment
    mechanism: Mechanism  # of its privacy, with the noise settled
    model: nn.Module  # with the initial weights
    device: torch.device  # that it is trained on
    loaded: Dataset  # as it came from its loader
    dataset: Dataset  # of the run, as stored; train is what the clients hold
    normalisation: Normalisation  # from its values to what the model takes
    task: Task  # what its labels mean
    reserve: Split  # training examples left out by train_examples
    partition: Partition
    own: OwnPatients  # of the clients, in validation and test
    lineage: Lineage  # of the initial weights
    observers: tuple[Observer, ...]  # early stopping and the trackers, in this order
    remarks: tuple[str, ...]  # what a person should know before the run


@own_code_named()
def build(config: Config, pixels: Dataset | None = None) -> Built:
    """Build every part of a resolved config (plain dicts and lists).

    Args:
        config: the resolved config.
        pixels: data in the place of the config's own; `train_examples` does not cut them.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    check_root(config)
    chosen = construct(config)
    parts, task = chosen.combination, chosen.task
    _refuse(chosen)
    seed, setting, everybody = config["seed"], parts.setting, parts.n_clients
    lineage = lineage_of(starting_point(config))

    data = load_data(config, chosen, pixels)
    partition = partitioned(config, chosen, data.dataset)
    # Only now is n_clients known to be no larger than the data, and what is drawn for it cheap.
    drawn(parts.sampler, everybody, generator(seed, "cohort", 0))  # what cannot be drawn fails here
    aggregator = setting.aggregator(parts.aggregator, everybody)
    clients = clients_of(config, partition, everybody, root_examples(aggregator))
    whole, malicious = clients.whole, clients.malicious
    sampler = attended(setting.sampler(parts.sampler), config, malicious)
    rehearse_cohort(parts, aggregator, sizes_of(whole.shards).tolist())
    trained_on = poisoned(whole, parts.attack, malicious, data.dataset.num_classes, seed)
    scale = normalisation_of(config["dataset"], data.dataset.train)
    dataset = replace(data.dataset, train=trained_on)
    model, of_weights = initial_model(chosen, config, dataset, lineage.start)
    aggregator = of_head(aggregator, head_columns(model))

    shards = setting.shards(whole)
    promised = not does_nothing(parts.privacy) or isinstance(parts.channel, Mechanism)
    if promised and shards is not whole.shards:
        refuse_shared_rows(shards, called(setting))
    plan = Plan(
        seed=seed,
        rounds=config["rounds"],
        sampler=sampler,
        sizes=tuple(sizes_of(shards).tolist()),
        d=row_size(parts.algorithm.sends, len(vector_of(model))),
        aggregator=aggregator,
        example_shape=dataset.input_shape,
    )
    left_out = unprotected(parts, len(clients.root_rows), trained_on is not whole.train)
    protection = protect(parts, plan, lineage, data.as_loaded, left_out)
    alone = protection.privacy.releases_every_round
    refuse_memory_of_others(parts, len(vector_of(model)), plan.d, validated_alone=alone)
    mechanism = protection.mechanism
    measured = evaluated(dataset, clients.partition, task, parts.attack, seed)
    cohort_size = min(parts.cohort_size, len(shards))
    device = _device(config["device"])
    train = clients_examples(clients, trained_on, mechanism, seed)
    workload = Workload(model, train, shards, measured.parts, cohort_size, device, task, scale)
    said = rehearse(workload, dataset.num_classes, parts.trainer, protection.trainer, seed)
    without_attack = None
    if trained_on is not whole.train and not parts.schedule.is_constant:
        without_attack = clients_examples(clients, whole.train, mechanism, seed)
    held = with_shards_behind(workload, clients, parts.trainer, without_attack)
    backend = _backend(chosen, config["backend"], held.workload)
    readers = (parts.attack, parts.worker_momentum, protection.privacy)
    gather = gather_of(backend, protection.channel, readers)
    refuse_too_many_rows(gather, cohort_size, plan.d)
    eval_every, pace = pace_of(config)
    experiment = Experiment(
        seed=seed,
        rounds=config["rounds"],
        eval_every=eval_every,
        pace=pace,
        max_failed_rounds=config["max_failed_rounds"],
        n_clients=len(shards),
        malicious=malicious if len(shards) == everybody else np.zeros(len(shards), dtype=bool),
        schedule=parts.schedule,
        unpoisoned=held.unpoisoned,
        setting=setting,
        sampler=sampler,
        trainer=protection.trainer,
        root=held.root,
        device=device,
        worker_momentum=parts.worker_momentum,
        backend=backend,
        gather=gather,
        attack=held_to_its_word(parts.attack),
        judge=judge(parts.attack, task, dataset.validation),
        channel=protection.channel,
        server=Server(
            n_clients=len(shards),
            algorithm=parts.algorithm,
            update_validation=parts.update_validation,
            privacy=protection.privacy,
            detector=parts.detector,
            pre_aggregation=tuple(parts.pre_aggregation.values()),
            aggregator=aggregator,
            optimizer=parts.server_optimizer,
            min_clients=min(parts.min_clients, everybody if communicates(setting) else 1),
            architecture=Architecture(model, task, dataset.input_shape),
        ),
        account=protection.account,
        evaluator=measured.evaluator,
    )
    return Built(
        experiment=experiment,
        mechanism=mechanism,
        model=model,
        device=device,
        loaded=data.as_loaded,
        dataset=dataset,
        normalisation=scale,
        task=task,
        reserve=data.reserve,
        partition=clients.partition,
        own=measured.own,
        lineage=lineage,
        observers=chosen.observers,
        remarks=(
            *data.remarks,
            *_of_folders(config),
            *pace_remarks(config),
            *remark_on(config["objective"]),
            *_disagreements(config, parts),
            *(patients_apart(shards, dataset.train) if communicates(setting) else ()),
            *remarks(parts),
            *remark_on_none(config),
            *remarks_on_poison(whole, trained_on, malicious, "attack" in measured.parts),
            *of_weights,
            *protection.remarks,
            *said,
        ),
    )


@own_code_named()
def refuse_parts(config: Config) -> None:
    """Raise InputError for parts that do not go together, as far as that shows without data."""
    check_root(config)
    chosen = construct(config)
    parts = chosen.combination
    _refuse(chosen)
    rehearse_cohort(parts, parts.setting.aggregator(parts.aggregator, parts.n_clients))


def _refuse(chosen: Chosen) -> None:
    """Raise InputError for parts, or studies of the run, that do not go with the others."""
    refuse(chosen.combination)
    for study in chosen.studies.values():
        if isinstance(study, Refuses):
            study.refuse(chosen.combination)


def _backend(chosen: Chosen, node: Config, workload: Workload) -> Backend:
    """As chosen; what tells runs apart by its bits must be told of in the config."""
    backend: Backend = chosen.make("backend", workload=workload)
    own = has_own_bits(type(backend))
    if (stated := node.get("own_bits", False)) is not own:
        raise InputError(
            f"is not the user's to say: this backend needs {str(own).lower()}",
            "backend.own_bits",
            stated,
        )
    return backend


def _of_folders(config: Config) -> tuple[str, ...]:
    """What came from other folders than the packaged one without a name that says so."""
    taken = config.get("taken_unnamed", {})
    return tuple(f"{group} is not fedexp's own: it is of {place}" for group, place in taken.items())


def _disagreements(config: Config, parts: Combination) -> list[str]:
    """What is said twice, and not alike."""
    if parts.cohort_size == config["cohort_size"]:
        return []
    return [
        f"cohort_size={config['cohort_size']} is not what the sampler draws: {parts.cohort_size} "
        "clients a round are expected, which all else goes by"
    ]


def _device(name: str) -> torch.device:
    one_of(("cpu", "cuda", "auto"), device=name)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("no GPU that torch can use was found; use device=cpu", "device", name)
    if not available or name == "cpu":
        return torch.device("cpu")
    repeatable()
    return torch.device("cuda")
