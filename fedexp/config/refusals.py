"""What does not go together: combinations of parts that are refused, each with the ways out.

The parts are asked, as objects and before any data, what they promise and what they need; who says
nothing promises nothing. What a privacy mechanism goes with is its own business (`refuse` in its
file), as a part's own preconditions are the part's; numbers of clients are rehearsed by `build`.

Not among them: worker momentum, which goes with every mechanism. What DP-SGD made private stays so
whatever is averaged afterwards; and where updates are clipped (client-level and local DP), that is
done to what a client sends, its momentum, so that one client moves a sum by the clip norm at most.
"""

from __future__ import annotations

import torch

from fedexp.config import assumption
from fedexp.core.capabilities import (
    Weighs,
    communicates,
    does_nothing,
    follows_clients,
    is_linear,
    needs_only_the_sum,
    noised_before_seen,
    sees_other_clients,
    shares_one_model,
    weighs_by_examples,
)
from fedexp.core.checks import InputError
from fedexp.core.protection import Combination, Mechanism, Refuses
from fedexp.core.protocols import ServerOptimizer
from fedexp.core.text import called

ONLY_FEDERATED = "needs setting=federated: nothing is shared in this one"


def refuse(parts: Combination) -> None:
    """Raise InputError for a combination that would not do, or not mean, what it says."""
    if not communicates(parts.setting):
        _refuse_defences(parts)
    if not shares_one_model(parts.setting):
        _refuse_what_needs_one_model(parts)
    if parts.extra_clients:
        _refuse_copies_of_examples(parts)
    if parts.n_malicious and parts.rounds and not parts.schedule.rounds(parts.rounds):
        if parts.schedule.first >= parts.rounds:
            reason = f"never comes: the run has {parts.rounds} rounds, counted from 0"
            raise InputError(reason, "attack.first_round", parts.schedule.first)
        schedule, last = parts.schedule, parts.rounds - 1
        last = last if schedule.last is None else min(last, schedule.last)
        raise InputError(
            f"is less than one of the rounds {schedule.first} to {last}",
            "attack.schedule.share_of_rounds",
            schedule.share_of_rounds,
        )
    if getattr(parts.detector, "down_weights", False) and not weighs_by_examples(parts.aggregator):
        raise InputError(
            f"has no effect on aggregator={type(parts.aggregator).__name__}, which weighs clients "
            "alike; use action=drop, or a rule with weighting=examples",
            "detector.action",
            "down_weight",
        )
    parts.privacy.refuse(parts)
    mechanisms = [] if does_nothing(parts.privacy) else [parts.privacy]
    if isinstance(parts.channel, Refuses):
        parts.channel.refuse(parts)
    if isinstance(parts.channel, Mechanism):
        mechanisms.append(parts.channel)
    if parts.n_malicious and not all(noised_before_seen(mechanism) for mechanism in mechanisms):
        _refuse_readers_of_rows(parts)
    if parts.channel.sums:
        _refuse_behind_sums(parts)


def _refuse_copies_of_examples(parts: Combination) -> None:
    """Malicious clients on top hold copies of what honest clients hold."""

    def refused(reason: str) -> InputError:
        return InputError(reason, "attack.extra_clients", True)

    if not parts.n_malicious:
        raise refused("adds as many clients as attack.n_malicious says, and that is 0")
    if does_nothing(parts.attack):
        raise refused("adds malicious clients, and with attack=none they would do nothing")
    if not does_nothing(parts.privacy) or isinstance(parts.channel, Mechanism):
        raise refused(
            "gives malicious clients copies of honest clients' examples, and no privacy mechanism "
            "counts what two clients hold; use privacy=none, or attack.extra_clients=false"
        )
    if parts.studies:
        raise refused(
            f"gives malicious clients copies of honest clients' examples, and a study "
            f"({', '.join(parts.studies)}) would count them twice; use leakage=none, or "
            "attack.extra_clients=false"
        )


def _refuse_readers_of_rows(parts: Combination) -> None:
    """Noise for one client's row hides one client only while no other row depends on that one."""
    if not sees_other_clients(parts.attack):
        return
    moved = 1 + 2 * min(parts.n_malicious, parts.n_clients - 1)
    raise InputError(
        "computes what malicious clients send from the others' updates, before there is noise in "
        f"them: one client would move the sum by up to 1 + 2 n_malicious = {moved} clip norms, and "
        "the noise is for 1; use an attack that sees its own clients alone (sign_flip, backdoor, "
        "scaling with a factor, ...), or noise in the clients: privacy=local_gaussian or dp_sgd",
        "attack",
        called(parts.attack),
    )


def _refuse_defences(parts: Combination) -> None:
    """There is no server that could be attacked, or defend itself."""
    if parts.n_malicious:
        raise InputError(ONLY_FEDERATED, "attack.n_malicious", parts.n_malicious)
    if parts.pre_aggregation:
        raise InputError(ONLY_FEDERATED, "pre_aggregation", ",".join(parts.pre_aggregation))
    if parts.algorithm.sends:
        raise InputError(ONLY_FEDERATED, "algorithm", called(parts.algorithm))
    if not does_nothing(parts.worker_momentum):
        raise InputError(ONLY_FEDERATED, "worker_momentum", called(parts.worker_momentum))
    if not does_nothing(parts.detector):
        raise InputError(ONLY_FEDERATED, "detector", called(parts.detector))
    if not does_nothing(parts.channel):
        raise InputError(ONLY_FEDERATED, "channel", called(parts.channel))


def _refuse_what_needs_one_model(parts: Combination) -> None:
    if not _adds_the_step(parts.server_optimizer):
        raise InputError(
            "there is no server where every client keeps a model of its own; use "
            "server_optimizer=sgd with lr=1",
            "server_optimizer",
            called(parts.server_optimizer),
        )
    if parts.studies:
        raise InputError(
            "there is no shared model to study where every client keeps its own",
            "leakage",
            ",".join(parts.studies),
        )


def _adds_the_step(optimizer: ServerOptimizer) -> bool:
    """Whether w <- w + step, exactly."""
    zero, one = torch.zeros(1), torch.ones(1)
    return is_linear(optimizer) and bool(optimizer(zero, one, optimizer.init(zero))[0] == one)


def _refuse_behind_sums(parts: Combination) -> None:
    """The server sees sums over clients, and no update of anybody."""
    rows = parts.channel.rows(parts.cohort_size)
    if rows == 1:
        _refuse_what_needs_rows(parts)
    if follows_clients(parts.detector):
        raise InputError(
            "judges a client by what it sent before, and the channel brings the server sums of "
            "several; use another detector, or channel=plain",
            "detector",
            called(parts.detector),
        )
    if parts.min_clients > rows:
        raise InputError(
            f"counts rows, and {rows} reach the server through the channel; use min_clients=1, and "
            "behind secure aggregation channel.threshold for how many clients must stay",
            "min_clients",
            parts.min_clients,
        )


def _refuse_what_needs_rows(parts: Combination) -> None:
    ways_out = (
        "the channel brings the server one sum and no individual update; use {}, secure "
        "aggregation with channel.groups=g for the sums of g groups, or channel=plain"
    )
    rule = parts.aggregator
    if not needs_only_the_sum(rule):
        raise InputError(ways_out.format("aggregator=mean"), "aggregator", called(rule))
    if not does_nothing(parts.detector):
        raise InputError(ways_out.format("detector=none"), "detector", called(parts.detector))
    if parts.pre_aggregation:
        names = ",".join(parts.pre_aggregation)
        raise InputError(ways_out.format("pre_aggregation=none"), "pre_aggregation", names)
    if (cap := getattr(parts.update_validation, "norm_cap", None)) is not None:
        raise InputError(ways_out.format("no cap"), "update_validation.norm_cap", cap)
    uniform = isinstance(rule, Weighs) and rule.weighting == "uniform"
    if uniform and weighs_by_examples(parts.channel):
        raise InputError(
            "clients weigh in the sum what channel.weighting says; set that to uniform too",
            "aggregator.weighting",
            "uniform",
        )


def remarks(parts: Combination) -> tuple[str, ...]:
    """Sentences about choices without effect in this run, and about what a rule cannot hold."""
    said = []
    attacks, malicious = not does_nothing(parts.attack), parts.n_malicious
    if attacks and not malicious:
        said.append(
            f"attack has no effect: none of the {parts.n_clients} clients is malicious "
            "(attack.n_malicious=0)"
        )
    if malicious and not attacks:
        said.append(f"attack.n_malicious={malicious} has no effect: attack=none")
    last = parts.schedule.last
    if attacks and malicious and last is not None and last >= parts.rounds:
        said.append(
            f"attack.last_round={last} is not reached: the run has {parts.rounds} rounds, counted "
            "from 0, and is attacked to its end"
        )
    warm_up = getattr(parts.detector, "rounds_without_opinion", 0)
    if warm_up >= parts.rounds:
        said.append(
            f"detector has no effect: it learns in its first {warm_up} rounds, "
            f"and the run has {parts.rounds}"
        )
    return (*said, *assumption.remark(parts))
