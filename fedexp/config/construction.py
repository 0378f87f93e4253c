"""Every part that can be made without data, each as its config says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedexp.config.pace import refuse_by_the_clock
from fedexp.config.parts import BUILDERS_OWN, Config, Parts, prefixed, required
from fedexp.config.root_keys import everybody
from fedexp.core.attack_schedule import malicious_in_a_cohort, schedule_of
from fedexp.core.capabilities import sampling_of
from fedexp.core.checks import InputError, one_of
from fedexp.core.observer import Observer
from fedexp.core.protection import Combination
from fedexp.core.protocols import Partitioner, Sampler, Task
from fedexp.core.text import called
from fedexp.data.loader import Loader
from fedexp.observers.guarded import Guarded
from fedexp.training.steps import refuse_other_work


@dataclass(frozen=True)
class Chosen:
    """The parts that a config names, made once."""

    make: Parts  # for those that need data or a model
    combination: Combination
    task: Task
    partitioner: Partitioner
    loader: Loader
    studies: Mapping[str, object]
    observers: tuple[Observer, ...]  # early stopping and the trackers, in this order


def construct(config: Config) -> Chosen:
    """The parts of a run.

    Raises:
        InputError: one cannot be made, or its own arguments do not go together.
    """
    make = Parts(config, config["trust"])
    # To be refused now rather than after the training.
    studies = {study: make(f"leakage.{study}") for study in config["leakage"]}
    _check_verdict(config)
    task: Task = make("task")
    one_of(task.metrics, objective=config["objective"])
    n_clients, setting = everybody(config), make("setting")
    trainer, sampler = make("training"), make("sampler")
    refuse_other_work(trainer)
    cohort_size = _cohort_size(n_clients, config["cohort_size"], sampler)
    with prefixed("training"):
        trainer = setting.trainer(trainer, n_clients, cohort_size)
    with prefixed("attack"):
        schedule = schedule_of(config["attack"])
        malicious_a_cohort = malicious_in_a_cohort(config["attack"])
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
        malicious_a_cohort=malicious_a_cohort,
    )
    trackers = [Guarded(name, make(f"tracker.{name}")) for name in config["tracker"]]
    stopping: Observer = make("early_stopping", metrics=task.metrics)
    observers: tuple[Observer, ...] = (stopping, *trackers)
    refuse_by_the_clock(config, observers)
    return Chosen(
        make=make,
        combination=combination,
        task=task,
        partitioner=make("partition"),
        loader=make("dataset"),
        studies=studies,
        observers=observers,
    )


def _cohort_size(n_clients: int, stated: int, sampler: Sampler) -> int:
    """How many clients a round has, or is to have on average: what the sampler says, if it does.

    `cohort_size` is its key too, but one of the two may be set, and the other one left.
    """
    said = sampling_of(sampler, n_clients)
    return stated if said is None else max(1, round(said.rate * n_clients))


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
    if not isinstance(node["defences"], Mapping):
        raise InputError("must be rules by name", "verdict.defences", node["defences"])
    nodes = {"attack": node["attack"], **{f"defences.{k}": v for k, v in node["defences"].items()}}
    for name, part in nodes.items():
        group = name.partition(".")[0].replace("defences", "aggregator")
        try:
            Parts({group: part}, config["trust"])(group)
        except InputError as error:
            key = f"verdict.{name}" + (error.key or group).removeprefix(group)
            # What is to be typed (+KEY=, ~KEY) is named by the group as well.
            reason = error.reason
            for sign in "+~":
                reason = reason.replace(f"{sign}{group}.", f"{sign}verdict.{name}.")
            raise InputError(reason, key, error.value) from None
