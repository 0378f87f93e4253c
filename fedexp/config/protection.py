"""What is done about what a run releases: its mechanism's protection, and what that covers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from fedexp.config.lineage import Lineage
from fedexp.config.of_its_group import methods_of
from fedexp.config.parts import prefixed
from fedexp.config.root_keys import GROUPS
from fedexp.core.capabilities import (
    PerturbsExamples,
    does_nothing,
    hides_rows,
    noised_before_seen,
    sampling_of,
)
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset
from fedexp.core.inherited import refuse_inherited
from fedexp.core.protection import Combination, Mechanism, Plan, Protection
from fedexp.core.protocols import Account, Algorithm, Remarks, Sends, Trainer
from fedexp.core.text import called
from fedexp.federation.tried_channel import refuse_mixed_rows
from fedexp.privacy.account import NoAccount, NotFromTheStart
from fedexp.privacy.none import NoPrivacy


def protect(
    parts: Combination,
    plan: Plan,
    lineage: Lineage,
    loaded: Dataset,
    left_out: tuple[str, ...] = (),
) -> Protection:
    """The run under its mechanism and behind its channel, with a promise that is true of it.

    Args:
        parts: of the run.
        plan: what the run releases.
        lineage: of the initial weights.
        loaded: the data as they came from their loader.
        left_out: what else no mechanism protects, in sentences.

    Raises:
        InputError: the promise cannot be made, or clients would not send what is expected.
    """
    protection = _of_this_run(_protected(parts, plan), lineage, loaded, plan.seed, left_out)
    _check_local(parts.algorithm, protection.trainer)
    return protection


def unprotected(parts: Combination, held_by_the_server: int, poisoned: bool) -> tuple[str, ...]:
    """What is trained on without the mechanism, in sentences.

    Args:
        parts: of the run.
        held_by_the_server: examples taken from the clients for the server's own training.
        poisoned: whether the adversary wrote examples of its own.
    """
    said = []
    if held_by_the_server:
        said.append(
            f"the {held_by_the_server} examples that the server takes from the clients and trains "
            "on itself (aggregator.root_examples)"
        )
    if poisoned and isinstance(parts.privacy, PerturbsExamples):
        said.append("the examples of malicious clients, which train on what they wrote themselves")
    return tuple(said)


def _protected(parts: Combination, plan: Plan) -> Protection:
    """The run under its mechanism, and behind its channel where that is one too."""
    bare = Protection(parts.trainer, NoPrivacy(), parts.channel, NoAccount(), parts.privacy)
    with prefixed("privacy", *GROUPS):  # it looks at the rule and at the sampler
        protection = parts.privacy.protect(plan, bare)
        _check_form(parts.privacy, protection)
        _check_nothing(parts.privacy, protection)
        refuse_inherited("privacy", parts.privacy, "protect")
    with prefixed("channel"):
        if hides_rows(parts.channel):
            refuse_inherited("channel", parts.channel, "hides_rows")
        if isinstance(parts.channel, Mechanism):
            refuse_inherited("channel", parts.channel, "protect")
            protection = parts.channel.protect(plan, protection)
        channel, largest = protection.channel, parts.cohort_size
        channel.check(largest, plan.d)
        said = sampling_of(parts.sampler, parts.n_clients)
        if said is None or said.kind == "poisson":  # whose cohorts may be that large
            largest = parts.n_clients
            channel.check(largest, plan.d)
        # What is done to rows that have their noise takes nothing from a promise.
        if (stated := _stated(protection)) and not noised_before_seen(parts.privacy):
            joins = stated["adjacency"] == "add_remove"
            refuse_mixed_rows(channel, plan.d, largest, joins)
    said_beforehand = channel.remarks(largest) if isinstance(channel, Remarks) else ()
    return replace(protection, remarks=(*protection.remarks, *said_beforehand))


STATED = (
    "mechanism",
    "unit",
    "adjacency",
    "epsilon",
    "delta",
    "accountant",
    "sampling",
    "noise_added_by",
    "noise_source",
)


def _check_form(mechanism: Mechanism, protection: object) -> None:
    """Raise InputError for what is no protection, or a promise that no summary could hold."""
    wrong = _no_protection(protection)
    if wrong:
        raise InputError(wrong, "privacy", called(mechanism))


def _no_protection(protection: object) -> str:
    """What is wrong with what a mechanism of somebody's own made; "": nothing."""
    if not isinstance(protection, Protection):
        return f"must return a Protection (protect), and returned a {type(protection).__name__}"
    account = protection.account
    missing = [name for name in (*methods_of(Account), "max_epsilon") if not hasattr(account, name)]
    if missing:
        return f"must open an account, and that has no {', '.join(missing)}"
    said = account.statement(account.init())
    if said is None:
        return ""
    try:
        json.dumps(said, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"makes a statement that cannot be written down ({error})"
    lacking = [key for key in STATED if key not in said]
    if lacking:
        return f"makes a statement without {', '.join(lacking)}"
    return ""


def _stated(protection: Protection) -> Mapping[str, object] | None:
    account = protection.account
    return account.statement(account.init())


def _promises(protection: Protection) -> bool:
    return _stated(protection) is not None


def _check_nothing(mechanism: Mechanism, protection: Protection) -> None:
    """Raise InputError for one that says that it does nothing, and promises something."""
    if does_nothing(mechanism) and _promises(protection):
        raise InputError(
            "says that it does nothing (does_nothing), and makes a promise: what does not go with "
            "it would not be refused; leave does_nothing out, or do not inherit it",
            "privacy",
            called(mechanism),
        )


def _of_this_run(
    protection: Protection,
    lineage: Lineage,
    loaded: Dataset,
    seed: int,
    left_out: tuple[str, ...],
) -> Protection:
    """With a promise that says what the model's start has to do with it; refused if it is false."""
    if not _promises(protection):
        return protection
    left_out = (*lineage.not_covered(loaded, seed), *left_out)
    if not left_out:
        return protection
    said = f"the promise of this run does not cover {'; '.join(left_out)}"
    return replace(
        protection,
        account=NotFromTheStart(protection.account, left_out),
        remarks=(*protection.remarks, said),
    )


def _check_local(algorithm: Algorithm, trainer: Trainer) -> None:
    """Raise InputError unless clients send what the server's side of the algorithm expects."""
    local = algorithm.local(trainer)
    if does_nothing(algorithm) and local is not trainer:
        raise InputError(
            "says that it does nothing (does_nothing), and clients would not train by the trainer "
            "that it is given; leave does_nothing out, or do not inherit it",
            "algorithm",
            called(algorithm),
        )
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
