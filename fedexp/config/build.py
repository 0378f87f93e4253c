"""From a resolved config to an `Experiment`; Hydra ends here and in `parts`.

Everything a user can get wrong is found before any training: here what does not go together, in
`parts` what is wrong with a part by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.config.lineage import Lineage, lineage_of
from fedexp.config.parts import BUILDERS_OWN, Config, Parts, prefixed, required
from fedexp.config.refusals import refuse, remarks
from fedexp.config.rehearsal import rehearse
from fedexp.config.unvalidated import without_validation
from fedexp.config.weights import Start, head_columns, starting_point
from fedexp.core.attack_schedule import malicious_in_a_cohort, schedule_of
from fedexp.core.capabilities import (
    ChecksTheModel,
    TriesTheServer,
    attack_of_client,
    called,
    communicates,
    does_nothing,
    has_own_bits,
    is_linear,
    of_head,
    root_examples,
    sampling_of,
)
from fedexp.core.checks import InputError, at_least, in_range, one_of
from fedexp.core.flat import vector_of
from fedexp.core.mapping import let_go
from fedexp.core.normalise import normalisation_of
from fedexp.core.observer import Observer
from fedexp.core.perturbation import examples_trained_on
from fedexp.core.protection import Combination, Mechanism, Plan, Protection
from fedexp.core.protocols import (
    Aggregator,
    Algorithm,
    Attack,
    Backend,
    ChecksData,
    OfDataset,
    Partitioner,
    Remarks,
    Sampler,
    Sends,
    ServerOptimizer,
    Task,
    Trainer,
)
from fedexp.core.rng import generator, seed_for, seeded
from fedexp.core.round_model import Architecture
from fedexp.core.shards import are_listed, sizes_of
from fedexp.core.types import Dataset, Normalisation, Partition, Split, Updates, row_size
from fedexp.core.workload import Workload
from fedexp.data.folder import data_folder
from fedexp.data.imbalance import check_factor, long_tailed
from fedexp.data.loader import Loader, load
from fedexp.federation.evaluation import ModelEvaluator, ShareOfTime, Unhurried
from fedexp.federation.extra_clients import with_extra_clients
from fedexp.federation.gather import gather_of, refuse_too_many_rows
from fedexp.federation.own_patients import OwnPatients
from fedexp.federation.own_rows import held_to_its_word
from fedexp.federation.root import NoRootData, RootData
from fedexp.federation.rounds import Experiment
from fedexp.federation.sampling import WithMalicious
from fedexp.federation.server import Server
from fedexp.federation.trial import Judge, LossOnValidation, NoJudge
from fedexp.federation.unpoisoned import with_own_data
from fedexp.observers.guarded import Guarded
from fedexp.partition.check import checked
from fedexp.privacy.account import NoAccount, NotFromTheStart
from fedexp.privacy.none import NoPrivacy
from fedexp.training.rehearsal import made_up, refuse_what_moves

GROUPS = (
    "dataset",
    "task",
    "partition",
    "model",
    "training",
    "algorithm",
    "worker_momentum",
    "sampler",
    "setting",
    "attack",
    "privacy",
    "channel",
    "update_validation",
    "detector",
    "aggregator",
    "server_optimizer",
    "backend",
    "early_stopping",
)
POSITIVE = (
    "rounds",
    "n_clients",
    "cohort_size",
    "min_clients",
    "max_failed_rounds",
    "checkpoint_every",
)
BY_COST, SHARE_OF_TIME = "auto", 0.2  # eval_every=auto: evaluations take at most this share
_AT_ONCE = 512  # examples as floats


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


def build(config: Config, pixels: Dataset | None = None) -> Built:
    """Build every part of a resolved config (plain dicts and lists).

    Args:
        config: the resolved config.
        pixels: data in the place of the config's own; `train_examples` does not cut them.

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    _check_root(config)
    chosen = _construct(config)
    parts, task = chosen.combination, chosen.task
    refuse(parts)
    n_clients, seed, setting = config["n_clients"], config["seed"], parts.setting
    lineage = lineage_of(starting_point(config))

    limit = imbalance = None
    if pixels is None:
        limit, imbalance = config["train_examples"], config["dataset"].get("imbalance")
        with prefixed("dataset"):
            pixels = load(chosen.loader, data_folder(config["paths"]["data_dir"]))
    loaded = pixels
    unvalidated = without_validation(pixels, config, chosen.observers, parts.attack)
    task.check(pixels.train.y, pixels.num_classes)
    if imbalance is not None:
        of = config["dataset"].get("imbalance_of", "train")
        pixels = long_tailed(pixels, imbalance, generator(seed, "imbalance"), of)
    for study, carried_out in chosen.studies.items():
        if isinstance(carried_out, ChecksData):
            with prefixed(f"leakage.{study}"):
                carried_out.check_data(pixels)
    pixels, reserve = _with_reserve(pixels, limit, seed)
    with prefixed("partition"):
        partitioner = chosen.partitioner
        if isinstance(partitioner, OfDataset):
            partitioner = partitioner.of(pixels)
        partition = partitioner(pixels.train, n_clients, generator(seed, "partition"))
    name = type(chosen.partitioner).__name__
    partition = checked(partition, pixels.train, n_clients, name)
    # Only now is n_clients known to be no larger than the data, and what is drawn for it cheap.
    everybody = parts.n_clients
    parts.sampler(everybody, generator(seed, "cohort", 0))  # what cannot be drawn fails here
    aggregator = setting.aggregator(parts.aggregator, everybody)
    partition, root_rows = _without_root_data(partition, root_examples(aggregator), seed)
    on_top = everybody - n_clients
    _refuse_lists(partition, config, n_clients, on_top)
    whole = with_extra_clients(partition, on_top, seed)
    malicious = malicious_clients(config, n_clients, on_top)
    sampler = _attended(setting.sampler(parts.sampler), config, malicious)
    _rehearse(parts, aggregator, sizes_of(whole.shards).tolist())
    with prefixed("attack"):
        trained_on = _poisoned(whole, parts.attack, malicious, seed)
        if trained_on is not whole.train:
            _refuse_unknown_labels(parts.attack, trained_on, pixels.num_classes)
    scale = normalisation_of(config["dataset"], pixels.train)
    dataset = replace(pixels, train=trained_on)
    model, of_weights = _model(chosen, config, dataset, lineage.start)
    aggregator = of_head(aggregator, head_columns(model))

    shards = setting.shards(whole)
    plan = Plan(
        seed=seed,
        rounds=config["rounds"],
        sampler=sampler,
        sizes=tuple(sizes_of(shards).tolist()),
        d=row_size(parts.algorithm.sends, len(vector_of(model))),
        aggregator=aggregator,
        example_shape=dataset.input_shape,
    )
    protection = _of_this_run(_protect(parts, plan), lineage, loaded, seed)
    _check_local(parts.algorithm, protection.trainer)
    counts = partition.label_counts(dataset.num_classes, task)
    parts_seen = {"validation": dataset.validation, "test": dataset.test}
    evaluation = {name: part for name, part in parts_seen.items() if len(part)}
    own = OwnPatients(partition, dict(evaluation), _mixes(counts), seed)
    if wanted := _wanted(parts.attack, dataset.test):
        evaluation["attack"] = reduce(Split.joined, wanted)
    measured = dict(evaluation)
    if own.are_known:
        evaluation |= own.seen_otherwise()
    cohort_size = min(parts.cohort_size, len(shards))
    device = _device(config["device"])
    poisoned = malicious & (trained_on is not whole.train)
    mechanism = protection.mechanism
    train = examples_trained_on(mechanism, trained_on, whole.shards, poisoned, seed)
    workload = Workload(model, train, shards, evaluation, cohort_size, device, task, scale)
    classes = dataset.num_classes
    said = rehearse(workload, classes, parts.trainer, protection.trainer, seed)
    root: NoRootData | RootData = NoRootData()
    if len(root_rows):
        root = RootData(len(shards), parts.trainer)
        workload = replace(workload, shards=(*shards, root_rows))
    unpoisoned: Mapping[int, int] = {}
    if trained_on is not whole.train and not parts.schedule.is_constant:
        nobody = np.zeros_like(poisoned)
        held = examples_trained_on(mechanism, whole.train, whole.shards, nobody, seed)
        train, again, places = with_own_data(train, held, whole.shards, malicious)
        unpoisoned = {client: len(workload.shards) + i for client, i in places.items()}
        workload = replace(workload, train=train, shards=(*workload.shards, *again))
    backend = _backend(chosen, config["backend"], workload)
    readers = (parts.attack, parts.worker_momentum, protection.privacy)
    gather = gather_of(backend, protection.channel, readers)
    refuse_too_many_rows(gather, cohort_size, plan.d)
    experiment = Experiment(
        seed=seed,
        rounds=config["rounds"],
        eval_every=1 if config["eval_every"] == BY_COST else config["eval_every"],
        pace=ShareOfTime(SHARE_OF_TIME) if config["eval_every"] == BY_COST else Unhurried(),
        max_failed_rounds=config["max_failed_rounds"],
        n_clients=len(shards),
        malicious=malicious if len(shards) == everybody else np.zeros(len(shards), dtype=bool),
        schedule=parts.schedule,
        unpoisoned=unpoisoned,
        setting=setting,
        sampler=sampler,
        trainer=protection.trainer,
        root=root,
        device=device,
        worker_momentum=parts.worker_momentum,
        backend=backend,
        gather=gather,
        attack=held_to_its_word(parts.attack),
        judge=_judge(parts.attack, task, dataset.validation),
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
        evaluator=ModelEvaluator(task, measured, _mixes(counts), own),
    )
    return Built(
        experiment=experiment,
        mechanism=protection.mechanism,
        model=model,
        device=device,
        loaded=loaded,
        dataset=dataset,
        normalisation=scale,
        task=task,
        reserve=reserve,
        partition=partition,
        own=own,
        lineage=lineage,
        observers=chosen.observers,
        remarks=(
            *pixels.remarks,
            *unvalidated,
            *_of_folders(config),
            *_of_the_pace(config),
            *_disagreements(config, parts),
            *remarks(parts),
            *of_weights,
            *protection.remarks,
            *said,
        ),
    )


def refuse_parts(config: Config) -> None:
    """Raise InputError for parts that do not go together, as far as that shows without data."""
    _check_root(config)
    parts = _construct(config).combination
    refuse(parts)
    _rehearse(parts, parts.setting.aggregator(parts.aggregator, parts.n_clients))


def _backend(chosen: _Chosen, node: Config, workload: Workload) -> Backend:
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


def _of_the_pace(config: Config) -> tuple[str, ...]:
    if config["eval_every"] != BY_COST:
        return ()
    return (
        "eval_every=auto: which rounds are evaluated, and so which of them is called the best, "
        "depends on how fast this machine is; the models and what is measured of them do not",
    )


@dataclass(frozen=True)
class _Chosen:
    """The parts that a config names, made once."""

    make: Parts  # for those that need data or a model
    combination: Combination
    task: Task
    partitioner: Partitioner
    loader: Loader
    studies: Mapping[str, object]
    observers: tuple[Observer, ...]


def _construct(config: Config) -> _Chosen:
    """Every part that can be made without data, each as its config says."""
    make = Parts(config, config["trust"])
    # To be refused now rather than after the training.
    studies = {study: make(f"leakage.{study}") for study in config["leakage"]}
    _check_verdict(config)
    task: Task = make("task")
    one_of(task.metrics, objective=config["objective"])
    n_clients, setting = _everybody(config), make("setting")
    trainer, sampler = make("training"), make("sampler")
    cohort_size = _cohort_size(n_clients, config["cohort_size"], sampler)
    with prefixed("training"):
        trainer = setting.trainer(trainer, n_clients, cohort_size)
    with prefixed("attack"):
        schedule = schedule_of(config["attack"])
    combination = Combination(
        n_clients=n_clients,
        cohort_size=cohort_size,
        min_clients=config["min_clients"],
        rounds=config["rounds"],
        setting=setting,
        sampler=sampler,
        trainer=trainer,
        algorithm=make("algorithm"),
        worker_momentum=make("worker_momentum"),
        attack=make("attack"),
        n_malicious=config["attack"]["n_malicious"],
        schedule=schedule,
        privacy=make("privacy"),
        channel=make("channel"),
        update_validation=make("update_validation"),
        detector=make("detector"),
        pre_aggregation={
            name: make(f"pre_aggregation.{name}") for name in config["pre_aggregation"]
        },
        aggregator=make("aggregator"),
        server_optimizer=make("server_optimizer"),
        studies=tuple(config["leakage"]),
        extra_clients=config["attack"].get("extra_clients", False),
    )
    trackers = [Guarded(name, make(f"tracker.{name}")) for name in config["tracker"]]
    stopping: Observer = make("early_stopping", metrics=task.metrics)
    if config["eval_every"] == BY_COST and not does_nothing(stopping):
        raise InputError(
            "the round in which early stopping ends the run would depend on how fast the machine "
            "is; give a number of rounds, or early_stopping.patience=null",
            "eval_every",
            BY_COST,
        )
    observers: tuple[Observer, ...] = (stopping, *trackers)
    return _Chosen(
        make=make,
        combination=combination,
        task=task,
        partitioner=make("partition"),
        loader=make("dataset"),
        studies=studies,
        observers=observers,
    )


def _check_verdict(config: Config) -> None:
    """Refuse a comparison that could not be made after the run."""
    if not (node := config["verdict"]):
        return
    Parts(config, config["trust"])("verdict")
    if not (made := Parts(config, config["trust"])("setting")).shares_one_model:
        raise InputError(
            "compares a shared model with other ways to train; needs setting=federated",
            "verdict",
            called(made),
        )
    for key in BUILDERS_OWN["verdict"]:
        required(node, key, "verdict")
    nodes = {"attack": node["attack"], **{f"defences.{k}": v for k, v in node["defences"].items()}}
    for name, part in nodes.items():
        group = name.partition(".")[0].replace("defences", "aggregator")
        try:
            Parts({group: part}, config["trust"])(group)
        except InputError as error:
            key = f"verdict.{name}" + (error.key or group).removeprefix(group)
            raise InputError(error.reason, key, error.value) from None


def _everybody(config: Config) -> int:
    """How many clients may take part in a round: with the malicious ones that come on top."""
    attack = config["attack"]
    on_top: int = attack["n_malicious"] if attack.get("extra_clients", False) else 0
    n_clients: int = config["n_clients"]
    return n_clients + on_top


def _cohort_size(n_clients: int, stated: int, sampler: Sampler) -> int:
    """How many clients a round has, or is to have on average: what the sampler says, if it does.

    `cohort_size` is its key too, but one of the two may be set, and the other one left.
    """
    said = sampling_of(sampler, n_clients)
    return stated if said is None else max(1, round(said.rate * n_clients))


def _protect(parts: Combination, plan: Plan) -> Protection:
    """The run under its mechanism, and behind its channel where that is one too."""
    bare = Protection(parts.trainer, NoPrivacy(), parts.channel, NoAccount(), parts.privacy)
    with prefixed("privacy"):
        protection = parts.privacy.protect(plan, bare)
    with prefixed("channel"):
        if isinstance(parts.channel, Mechanism):
            protection = parts.channel.protect(plan, protection)
        channel, largest = protection.channel, parts.cohort_size
        channel.check(largest, plan.d)
        said = sampling_of(parts.sampler, parts.n_clients)
        if said is None or said.kind == "poisson":  # whose cohorts may be that large
            largest = parts.n_clients
            channel.check(largest, plan.d)
    said_beforehand = channel.remarks(largest) if isinstance(channel, Remarks) else ()
    return replace(protection, remarks=(*protection.remarks, *said_beforehand))


def _of_this_run(
    protection: Protection, lineage: Lineage, loaded: Dataset, seed: int
) -> Protection:
    """With a promise that says what the model's start has to do with it; refused if it is false."""
    account = protection.account
    if account.statement(account.init()) is None or not lineage.start.digest:
        return protection
    left_out = lineage.not_covered(loaded, seed)
    said = f"the promise of this run does not cover {'; '.join(left_out)}"
    return replace(
        protection,
        account=NotFromTheStart(account, left_out),
        remarks=(*protection.remarks, said),
    )


def _disagreements(config: Config, parts: Combination) -> list[str]:
    """What is said twice, and not alike."""
    if parts.cohort_size == config["cohort_size"]:
        return []
    return [
        f"cohort_size={config['cohort_size']} is not what the sampler draws: {parts.cohort_size} "
        "clients a round are expected, which all else goes by"
    ]


def _with_reserve(pixels: Dataset, wanted: int | None, seed: int) -> tuple[Dataset, Split]:
    """The data with only so many training examples, drawn at random, and those left out."""
    available = len(pixels.train)
    if wanted is not None and wanted > available:
        raise InputError(f"there are {available}", "train_examples", wanted)
    if wanted in (None, available):
        return pixels, pixels.train.rows(torch.empty(0, dtype=torch.int64))
    order = torch.from_numpy(generator(seed, "train_examples").permutation(available))
    kept, left_out = order[:wanted].sort().values, order[wanted:].sort().values
    return replace(pixels, train=pixels.train.rows(kept)), pixels.train.rows(left_out)


def _check_local(algorithm: Algorithm, trainer: Trainer) -> None:
    """Raise InputError unless clients send what the server's side of the algorithm expects."""
    local = algorithm.local(trainer)
    sends = local.sends if isinstance(local, Sends) else ()
    if sends != algorithm.sends:
        names = [
            ", ".join(s.name for s in which) or "nothing" for which in (sends, algorithm.sends)
        ]
        raise InputError(
            f"sends {names[0]} beside the delta, and the algorithm expects {names[1]}",
            "training",
            type(trainer).__name__,
        )


def _without_root_data(
    partition: Partition, wanted: int, seed: int
) -> tuple[Partition, np.ndarray]:
    """The partition without the examples that the server keeps, and their rows in `train`.

    They are taken from the clients, so that a rule with root data has no more of the training part
    than its rivals, and the validation part is everybody's. No client loses its last example.
    """
    if not wanted:
        return partition, np.empty(0, dtype=np.int64)
    if not are_listed(partition.shards):
        n_clients = len(partition.shards)
        raise InputError(
            f"are taken from the clients one by one, and {n_clients:,} are too many to be listed",
            "aggregator.root_examples",
            wanted,
        )
    left = np.array([len(shard) for shard in partition.shards])
    holder = np.repeat(np.arange(len(left)), left)
    held = np.concatenate(partition.shards)
    root: list[int] = []
    for place in generator(seed, "root").permutation(len(held)):
        if len(root) == wanted:
            break
        if left[holder[place]] > 1:
            left[holder[place]] -= 1
            root.append(int(held[place]))
    if len(root) < wanted:
        raise InputError(
            f"the clients can give {len(root)} of their {len(held)} examples and keep one each",
            "aggregator.root_examples",
            wanted,
        )
    shards = tuple(np.setdiff1d(shard, root, assume_unique=True) for shard in partition.shards)
    return replace(partition, shards=shards), np.array(sorted(root), dtype=np.int64)


def _refuse_lists(partition: Partition, config: Config, n_clients: int, on_top: int) -> None:
    """Refuse what goes through all clients one by one, where they are too many to be listed."""
    if are_listed(partition.shards):
        return
    wants = {
        "verdict": (config["verdict"], "trains and judges a model for every client"),
        "attack.extra_clients": (on_top, "copies examples of every client"),
    }
    for key, (wanted, reason) in wants.items():
        if wanted:
            raise InputError(f"{reason}, and {n_clients:,} are too many to be listed", key, True)


def _check_root(config: Config) -> None:
    for group in GROUPS:
        required(config[group], "_target_", group)
    for group in ("pre_aggregation", "leakage", "tracker"):
        for name in config[group]:
            if not re.fullmatch(r"\w[\w-]*", str(name)):  # it becomes a key's, and a folder's
                raise InputError("must be made of letters, digits, _ and -", group, name)
    for name, mixer in config["pre_aggregation"].items():
        if not isinstance(mixer, Mapping) or "_target_" not in mixer:
            raise InputError("is not chosen", f"pre_aggregation.{name}", mixer)
    for key in ("fraction", "n_malicious", "first_round"):
        required(config["attack"], key, "attack")
    check_factor(config["dataset"].get("imbalance"), config["dataset"].get("imbalance_of", "train"))
    if config["seed"] < 0:  # of any length: streams are keyed by it, nothing counts with it
        at_least(0, seed=config["seed"])
    for key in POSITIVE:
        at_least(1, **{key: config[key]})
    if config["eval_every"] != BY_COST:
        try:
            at_least(1, eval_every=config["eval_every"])
        except InputError as error:
            raise InputError(f"{error.reason}, or auto", error.key, error.value) from None
    _check_adversary(config)
    if config["cohort_size"] > _everybody(config):
        on_top = _everybody(config) - config["n_clients"]
        more = f", and {on_top} malicious ones on top" if on_top else ""
        raise InputError(
            "a cohort cannot be larger than the federation "
            f"(n_clients={config['n_clients']}{more})",
            "cohort_size",
            config["cohort_size"],
        )
    if config["min_clients"] > config["cohort_size"]:
        raise InputError(
            f"would skip nearly every round: cohort_size is {config['cohort_size']}",
            "min_clients",
            config["min_clients"],
        )
    at_least(0, assumed_malicious=config["assumed_malicious"])
    if config["record_updates"] not in (False, True, "safetensors", "pth"):
        allowed = "Allowed: false, true (both), safetensors, pth"
        raise InputError(allowed, "record_updates", config["record_updates"])
    if config["mean_last_rounds"] is not None:
        at_least(1, mean_last_rounds=config["mean_last_rounds"])
    if config["train_examples"] is not None:
        at_least(1, train_examples=config["train_examples"])


def _check_adversary(config: Config) -> None:
    extra = config["attack"].get("extra_clients", False)
    if not isinstance(extra, bool):
        raise InputError("must be true or false", "attack.extra_clients", extra)
    in_range(0, 1, **{"attack.fraction": config["attack"]["fraction"]})
    n_malicious = config["attack"]["n_malicious"]
    if not isinstance(n_malicious, int) or isinstance(n_malicious, bool):
        raise InputError("must be a whole number", "attack.n_malicious", n_malicious)
    in_range(0, config["n_clients"], **{"attack.n_malicious": n_malicious})


def malicious_clients(config: Config, n_clients: int, on_top: int = 0) -> np.ndarray:
    """`[n_clients + on_top]` bool: who the adversary controls.

    The last, where its clients come on top; else drawn from the seed alone.
    """
    if on_top:
        return np.arange(n_clients + on_top) >= n_clients
    mask = np.zeros(n_clients, dtype=bool)
    rng = generator(config["seed"], "malicious")
    mask[rng.choice(n_clients, config["attack"]["n_malicious"], replace=False)] = True
    return mask


def _attended(sampler: Sampler, config: Config, malicious: np.ndarray) -> Sampler:
    """The sampler, or one whose cohorts have as many malicious clients as the config asks for."""
    with prefixed("attack"):
        number = malicious_in_a_cohort(config["attack"])
        if number is None:
            return sampler
        fixed = WithMalicious(sampler, malicious, number)
        fixed(len(malicious), generator(config["seed"], "cohort", 0))  # what cannot be drawn
        return fixed


def _poisoned(partition: Partition, attack: Attack, malicious: np.ndarray, seed: int) -> Split:
    """The training part with the malicious clients' rows as they will train on them."""
    train = partition.train
    rows: list[Tensor] = []
    changed: list[Split] = []
    for number, client in enumerate(np.flatnonzero(malicious).tolist()):
        held = torch.from_numpy(partition.shards[client])
        own = train.rows(held).as_floats()
        its = attack_of_client(attack, number)
        poisoned = its.poison(own, generator(seed, "poison", client))
        if poisoned is own:
            continue
        if poisoned.x.shape != own.x.shape or poisoned.y.shape != own.y.shape:
            raise InputError(
                f"made {len(poisoned)} examples of client {client}'s {len(own)}, or of another "
                "shape: it may only change them",
                "attack",
                type(attack).__name__,
            )
        rows.append(held)
        changed.append(poisoned)
    if not rows:
        return train
    return train.with_rows(torch.cat(rows), reduce(Split.joined, changed))


def _wanted(attack: Attack, test: Split) -> list[Split]:
    """What the adversary wants answered its way, a block of examples at a time.

    As floats, all of a large part would take four times its memory.
    """
    if does_nothing(attack):
        return []
    found = []
    for start in range(0, len(test), _AT_ONCE):
        block = test.between(start, min(start + _AT_ONCE, len(test)))
        if len(wanted := attack.targeted_examples(block.as_floats())):
            found.append(wanted.stored_like(test))
        let_go(block.x)
    return found


def _judge(attack: Attack, task: Task, validation: Split) -> Judge:
    """What an attack that measures what it does measures it by."""
    if not isinstance(attack, TriesTheServer):
        return NoJudge()
    return LossOnValidation(task, validation.y)


def _refuse_unknown_labels(attack: Attack, trained_on: Split, num_classes: int) -> None:
    """An attack that was told of other classes than there are (its own `num_classes`)."""
    y = trained_on.y
    if trained_on.one_class and not bool(((y >= 0) & (y < num_classes)).all()):
        wrong = y[(y < 0) | (y >= num_classes)]
        raise InputError(
            f"gives label {int(wrong[0])}, and there are classes 0 to {num_classes - 1}",
            "num_classes",
            getattr(attack, "num_classes", called(attack)),
        )


def _mixes(counts: np.ndarray) -> np.ndarray:
    """Each client's share of each class, from its counts; 0 where it has no label at all."""
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _rehearse(parts: Combination, aggregator: Aggregator, sizes: Sequence[int] = ()) -> None:
    """Aggregate a cohort of zero rows: a precondition that cannot hold fails before training.

    `sizes` are the clients'; they count where all of them make a cohort.
    """
    n = parts.channel.rows(parts.cohort_size)
    if n > parts.cohort_size:
        raise InputError(
            f"cannot make {n} sums of {parts.cohort_size} clients", "channel.groups", n
        )
    rows = Updates(
        torch.zeros(n, 1),
        # The last clients: a rule that keeps something of each must have room for them.
        tuple(-1 - r if parts.channel.sums else parts.n_clients - 1 - r for r in range(n)),
        torch.tensor(sizes if len(sizes) == n else [1] * n, dtype=torch.float64),
        reference=torch.zeros(1),
    )
    rng = generator(0, "rehearsal")
    for name, mix in parts.pre_aggregation.items():
        with prefixed(f"pre_aggregation.{name}"):
            rows = mix(rows, rng)
    rule = of_head(aggregator, slice(0, 1))
    with prefixed("aggregator"):
        rule(rows, rule.init(1), rng)


def _model(
    chosen: _Chosen, config: Config, dataset: Dataset, start: Start
) -> tuple[nn.Module, list[str]]:
    """The initial model, and sentences about where its weights are from."""
    with seeded(seed_for(config["seed"], "model"), torch.device("cpu")):
        model = chosen.make("model")
        name = type(model).__name__
        if not isinstance(model, nn.Module):
            raise InputError("is not a torch.nn.Module", "model", name)
        averaged = _buffers_are_averaged(config["buffers"], chosen.combination.server_optimizer)
        kind = "images" if dataset.train.are_images else "rows"
        try:
            with torch.no_grad():  # lazy layers draw their weights here
                shape = tuple(model.eval()(torch.zeros(2, *dataset.input_shape)).shape)
        except Exception as error:
            size = "x".join(map(str, dataset.input_shape))
            reason = str(error).splitlines()[0]
            raise InputError(f"cannot take {kind} of {size}: {reason}", "model", name) from error
    expected = (2, dataset.num_classes)
    if shape != expected:
        raise InputError(f"gives {shape} for 2 {kind}, not {expected}", "model", name)
    said = start.prepare(model)
    vector_of(model)  # refuses a module that has nothing to train
    x = made_up(dataset.input_shape)
    y = dataset.train.y[torch.arange(len(x)) % len(dataset.train)]
    for part in (chosen.combination.privacy, chosen.combination.detector):
        if not isinstance(part, ChecksTheModel):
            continue
        try:
            part.check_model(model, chosen.task, x, y)
        except InputError:
            raise
        except Exception as error:  # what a model answers in training need not be logits
            reason = f"a step of training on {len(x)} examples fails: {str(error).splitlines()[0]}"
            raise InputError(reason, "model", name) from error
    refuse_what_moves(model, chosen.task, x, y, averaged)
    return model, said


def _buffers_are_averaged(buffers: str, server_optimizer: ServerOptimizer) -> bool:
    one_of(("refuse", "average"), buffers=buffers)
    if buffers == "average" and not is_linear(server_optimizer):
        raise InputError(
            "an adaptive server optimiser can make running variances negative; use "
            "server_optimizer=sgd or buffers=refuse",
            "buffers",
            buffers,
        )
    return buffers == "average"


def _device(name: str) -> torch.device:
    one_of(("cpu", "cuda", "auto"), device=name)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("no GPU that torch can use was found; use device=cpu", "device", name)
    return torch.device("cuda" if available and name != "cpu" else "cpu")
