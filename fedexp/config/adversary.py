"""Whom the adversary controls, what its clients train on, and what it is shown."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from torch import Tensor

from fedexp.config.parts import Config, prefixed
from fedexp.core.attack_schedule import malicious_in_a_cohort
from fedexp.core.capabilities import (
    DrawsByAnother,
    TriesTheServer,
    attack_of_client,
    does_nothing,
    sampling_of,
    targets_by_example,
)
from fedexp.core.checks import InputError, of_its_own
from fedexp.core.examples import Split
from fedexp.core.mapping import let_go
from fedexp.core.partition import Partition
from fedexp.core.protocols import Attack, Sampler, Task
from fedexp.core.rng import generator
from fedexp.core.text import called
from fedexp.core.untouched import seen
from fedexp.federation.sampling import WithMalicious
from fedexp.federation.trial import Judge, LossOnValidation, NoJudge

_AT_ONCE = 512  # examples as floats


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


def attended(sampler: Sampler, config: Config, malicious: np.ndarray) -> Sampler:
    """The sampler, or one whose cohorts have as many malicious clients as the config asks for.

    Where nobody is malicious, as in the run that others are compared with, it is left alone.
    """
    with prefixed("attack"):
        number = malicious_in_a_cohort(config["attack"])
        if number is None or not malicious.any():
            return sampler
        fixed = _with_malicious(sampler, malicious, number)
        fixed(len(malicious), generator(config["seed"], "cohort", 0))  # what cannot be drawn
        return fixed


def _with_malicious(sampler: Sampler, malicious: np.ndarray, number: int) -> Sampler:
    """Clients are exchanged where they are drawn: who is left out of a cohort later stays out."""
    if isinstance(sampler, DrawsByAnother):
        return sampler.around(_with_malicious(sampler.sampler, malicious, number))
    sampling = sampling_of(sampler, len(malicious))
    if sampling is not None and sampling.kind == "poisson" and sampling.rate < 1:
        raise InputError(
            "needs cohorts of one size, and the sampler's may be smaller than that, or empty; "
            "use sampler=uniform",
            "schedule.clients_a_round",
            number,
        )
    return WithMalicious(sampler, malicious, number)


def poisoned(
    partition: Partition, attack: Attack, malicious: np.ndarray, num_classes: int, seed: int
) -> Split:
    """The training part with the malicious clients' rows as they will train on them.

    The partition's own, the same object, where the attack changes no example.

    Args:
        partition: over all clients.
        attack: may change the examples of its own.
        malicious: `[n_clients]` bool.
        num_classes: that there are.
        seed: of the run.

    Raises:
        InputError: the attack makes other examples than it was given, or labels that are none.
    """
    with prefixed("attack"):
        train = _with_poison(partition, attack, malicious, seed)
        if train is not partition.train:
            _refuse_unknown_labels(attack, train, num_classes)
    return train


def _with_poison(partition: Partition, attack: Attack, malicious: np.ndarray, seed: int) -> Split:
    train = partition.train
    rows: list[Tensor] = []
    changed: list[Split] = []
    for number, client in enumerate(np.flatnonzero(malicious).tolist()):
        held = torch.from_numpy(partition.shards[client])
        own = train.rows(held).as_floats()
        its = attack_of_client(attack, number)
        before = seen(own.x, own.y)
        try:
            poisoned: object = its.poison(own, generator(seed, "poison", client))
        except InputError:
            raise
        except Exception as error:  # of an attack of somebody's own
            reason = f"cannot poison client {client}'s examples: {of_its_own(error)}"
            raise InputError(reason, "attack", called(attack)) from error
        if seen(own.x, own.y) != before or not isinstance(poisoned, Split):
            given = f"returned a {type(poisoned).__name__}, or changed its examples in place"
            reason = f"must return new examples (dataclasses.replace), and {given}"
            raise InputError(reason, "attack", called(attack))
        if poisoned is own:
            continue
        if _form(poisoned) != _form(own):
            raise InputError(
                f"made {len(poisoned)} examples of client {client}'s {len(own)}, or of another "
                "shape or type: it may only change them",
                "attack",
                called(attack),
            )
        rows.append(held)
        changed.append(poisoned)
    if not rows:
        return train
    return train.with_rows(torch.cat(rows), reduce(Split.joined, changed))


def _form(part: Split) -> tuple[object, ...]:
    return part.x.shape, part.x.dtype, part.y.shape, part.y.dtype


def _refuse_unknown_labels(attack: Attack, trained_on: Split, num_classes: int) -> None:
    """An attack that was told of other classes than there are (its own `num_classes`)."""
    y = trained_on.y
    if trained_on.one_class and not bool(((y >= 0) & (y < num_classes)).all()):
        wrong = y[(y < 0) | (y >= num_classes)]
        reason = f"gives label {int(wrong[0])}, and there are classes 0 to {num_classes - 1}"
        if (told := getattr(attack, "num_classes", None)) is not None:
            raise InputError(reason, "num_classes", told)
        raise InputError(reason, "attack", called(attack))


def wanted(attack: Attack, test: Split) -> Split | None:
    """What of test the adversary wants answered its way; None for nothing."""
    if does_nothing(attack):
        return None
    found = []
    # As floats, all of a large part would take four times its memory.
    at_once = _AT_ONCE if targets_by_example(attack) else max(len(test), 1)
    for start in range(0, len(test), at_once):
        block = test.between(start, min(start + at_once, len(test)))
        if len(chosen := _targets(attack, block.as_floats())):
            found.append(chosen.stored_like(test))
        let_go(block.x)
    return reduce(Split.joined, found) if found else None


def _targets(attack: Attack, block: Split) -> Split:
    before = seen(block.y), block.x._version
    chosen: object = attack.targeted_examples(block)
    if (seen(block.y), block.x._version) != before or not isinstance(chosen, Split):
        given = f"returned a {type(chosen).__name__}, or changed its examples in place"
        reason = (
            f"must return examples that it wants answered its way, none or new ones; it {given}"
        )
        raise InputError(reason, "attack", called(attack))
    return chosen


def remarks_on_poison(
    partition: Partition, trained_on: Split, malicious: np.ndarray, wants: bool
) -> tuple[str, ...]:
    """A sentence about an attack that wants answers, and teaches none of its clients any.

    Args:
        partition: over all clients.
        trained_on: the training part in attacked rounds.
        malicious: `[n_clients]` bool.
        wants: whether there are answers that it wants.
    """
    clients = np.flatnonzero(malicious).tolist()
    if not (wants and clients):
        return ()
    held = torch.from_numpy(np.concatenate([partition.shards[client] for client in clients]))
    if trained_on is not partition.train and _differ(partition.train, trained_on, held):
        return ()
    return (
        f"attack changes none of the {len(held):,} examples of the malicious clients: they hold "
        "none that it would change, or its share of them rounds to none",
    )


def _differ(before: Split, after: Split, rows: Tensor) -> bool:
    if not torch.equal(before.y[rows], after.y[rows]):  # mostly, and the images are not looked at
        return True
    x, changed = before.rows(rows).as_floats().x, after.rows(rows).as_floats().x
    return not torch.equal(x, changed)


def judge(attack: Attack, task: Task, validation: Split) -> Judge:
    """What an attack that measures what it does measures it by."""
    if not isinstance(attack, TriesTheServer):
        return NoJudge()
    return LossOnValidation(task, validation.y)
