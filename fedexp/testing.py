"""The contracts of the parts as checks, for parts of your own.

    import fedexp

    fedexp.testing.check_aggregator(MyRule(assumed_malicious=2))

A check gives nothing back, or raises an AssertionError that says in words what is wrong. The same
checks go over every rule of `conf/aggregator` in fedexp's own tests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import sensitivity_of, weighs_by_examples
from fedexp.core.checks import InputError
from fedexp.core.protocols import Aggregator
from fedexp.core.rng import generator, torch_generator
from fedexp.core.types import State, Updates

CLIENTS, NUMBERS = 24, 37
"""`n` and `d` of the rows that are shown: enough clients for rules that tolerate a few."""

TOLERANCE = 1e-5
"""Of float32 sums taken in another order, relative to the rows."""


WRITTEN = "the rule has written into the rows that it was given; it must work on a copy"


def check_aggregator(
    rule: Aggregator | Callable[[Any], Any], *, follows_agreement: bool = True
) -> None:
    """Put an aggregation rule through the contract that all rules keep.

    Args:
        rule: an object as `fedexp.core.protocols.Aggregator`, or a function from rows `[n, d]` (a
            float32 array, or a tensor if it cannot take that) to a step `[d]`.
        follows_agreement: clients that all send one row get that row. False for rules whose step
            is not of the rows' own size, such as signs, and for those that add noise.

    Raises:
        AssertionError: the rule breaks the contract; the message says how, in words.

    >>> check_aggregator(lambda rows: rows.mean(0))
    >>> check_aggregator(lambda rows: rows.sum(0))
    Traceback (most recent call last):
    AssertionError: 24 clients that all send the same row do not get that row back: ...
    """
    whole: Any = rule if hasattr(rule, "init") else _Function.of(rule)
    for name, check in AGGREGATOR_CONTRACT.items():
        if name == "agreement" and not follows_agreement:
            continue
        check(whole)


def gives_one_finite_vector(rule: Aggregator) -> None:
    """A step is a tensor `[d]` in the rows' float32, finite where they are, for any d."""
    for d in (1, NUMBERS):
        step = _step(rule, rows(d=d))
        _require(
            bool(step.isfinite().all()),
            f"the step must be finite where all rows are; {int((~step.isfinite()).sum())} of its "
            f"{d} numbers are not",
        )


def leaves_its_input_alone(rule: Aggregator) -> None:
    """Rows and weights are the caller's: other parts look at them later."""
    given = rows()
    matrix, examples = given.matrix.clone(), given.num_examples.clone()
    _call(rule, given)
    _require(
        torch.equal(given.matrix, matrix),
        WRITTEN,
    )
    _require(
        torch.equal(given.num_examples, examples),
        "the rule has written into num_examples; it must work on a copy",
    )


def gives_a_step_of_its_own(rule: Aggregator) -> None:
    """The step is no view of the rows, whose buffer the next round overwrites."""
    given = rows()
    step = _step(rule, given)
    before = step.clone()
    given.matrix.fill_(7.0)
    _require(
        torch.equal(step, before),
        "the step is a view of the rows and changes when the next round overwrites them; give a "
        "copy (.clone())",
    )


def ignores_the_order(rule: Aggregator) -> None:
    """Clients have no order: shuffled rows give the same step, up to rounding."""
    given = rows()
    order = torch.randperm(CLIENTS, generator=torch_generator(1))
    shuffled = replace(
        given,
        matrix=given.matrix[order],
        client_ids=tuple(order.tolist()),
        num_examples=given.num_examples[order],
    )
    far = _distance(_step(rule, shuffled), _step(rule, given))
    _require(
        far <= TOLERANCE,
        f"the order of the clients changes the step, by up to {far:.3g}; it must not matter",
    )


def follows_agreement(rule: Aggregator) -> None:
    """Clients that agree get what they say."""
    row = rows(1).matrix[0]
    far = _distance(_step(rule, sent(row.repeat(CLIENTS, 1))), row)
    _require(
        far <= TOLERANCE,
        f"{CLIENTS} clients that all send the same row do not get that row back: the step is off "
        f"by up to {far:.3g}. Where that is meant (signs, noise), pass follows_agreement=False",
    )


def depends_on_its_arguments_alone(rule: Aggregator) -> None:
    """Equal rows, state and rng give equal bits; nothing is drawn from a global generator."""
    first = _step(rule, rows())
    _require(
        torch.equal(first, _step(rule, rows())),
        "the same rows, state and rng have given two different steps; all randomness must come "
        "from the rng that is handed in",
    )
    with _global_generators() as untouched:
        _call(rule, rows())
        for name, same in untouched().items():
            _require(
                same,
                f"the rule draws from the global generator of {name}; all randomness must come "
                "from the rng that is handed in",
            )


def follows_or_refuses_a_single_client(rule: Aggregator) -> None:
    """One client is served with a step, or refused with an InputError, never with another error."""
    row = rows(1)
    try:
        step = _outcome(rule, row, "one client")[0]
    except InputError:
        return
    _require(
        tuple(step.shape) == (NUMBERS,) and bool(step.isfinite().all()),
        "a single client's row must give a finite step [d]; a rule that needs more clients must "
        "refuse with fedexp.InputError",
    )


def hands_its_state_back(rule: Aggregator) -> None:
    """State is named tensors that keep shape and type, are never written to, and can be saved."""
    before = rule.init(NUMBERS)
    _require(
        isinstance(before, Mapping)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in before.items()),
        f"init(d) must give a mapping from names to tensors (an empty one is fine), not {before!r}",
    )
    copies = {name: tensor.clone() for name, tensor in before.items()}
    after = _call(rule, rows(), before)[1]
    kinds = [{k: (list(v.shape), v.dtype) for k, v in s.items()} for s in (before, after)]
    _require(
        kinds[0] == kinds[1],
        f"the state that comes back must have the names, shapes and types of init's: {kinds[0]} "
        f"has become {kinds[1]}",
    )
    for name, tensor in copies.items():
        _require(
            torch.equal(before[name], tensor),
            f"the rule has written into its old state {name!r}; it must give back a new tensor",
        )
    step = _call(rule, rows(seed=1), after)[0]
    _require(tuple(step.shape) == (NUMBERS,), "the second round's step has another shape")


def keeps_its_sensitivity(rule: Aggregator) -> None:
    """What a rule declares about one client's influence holds for random and adversarial rows.

    Where `sensitivity(clip_norm, n)` is a number, adding or taking away one row whose norm is at
    most `clip_norm`, among others that are bounded alike, moves n * step by at most that. Trying
    can only refute: a rule that passes may still be wrong.
    """
    for clip_norm in (0.5, 4.0):
        bound = sensitivity_of(rule, clip_norm, CLIENTS)
        if bound is None:
            return
        for cohort in _bounded_cohorts(clip_norm, equal=weighs_by_examples(rule)):
            whole = CLIENTS * _step(rule, cohort).double()
            kept = torch.ones(CLIENTS, dtype=torch.bool)
            kept[0] = False
            without = (CLIENTS - 1) * _step(rule, cohort.select(kept)).double()
            moved = float((whole - without).norm())
            _require(
                moved <= bound * (1 + 1e-4),
                f"sensitivity({clip_norm:g}, {CLIENTS}) says that one client's row moves n * step "
                f"by at most {bound:.4g}, but taking one away has moved it by {moved:.4g}: no "
                "privacy may be promised with this bound",
            )


AGGREGATOR_CONTRACT: Mapping[str, Callable[[Aggregator], None]] = {
    "vector": gives_one_finite_vector,
    "input": leaves_its_input_alone,
    "view": gives_a_step_of_its_own,
    "order": ignores_the_order,
    "agreement": follows_agreement,
    "randomness": depends_on_its_arguments_alone,
    "single": follows_or_refuses_a_single_client,
    "state": hands_its_state_back,
    "sensitivity": keeps_its_sensitivity,
}
"""Every check by a short name, in the order in which they are made."""


def rows(n: int = CLIENTS, d: int = NUMBERS, seed: int = 0) -> Updates:
    """Normal rows `[n, d]` of `n` clients, the same for the same seed."""
    return sent(torch.randn(n, d, generator=torch_generator(seed)))


def sent(matrix: Tensor, examples: Tensor | None = None) -> Updates:
    """Rows as a rule gets them; the server's own update is their mean, the honest direction."""
    n = len(matrix)
    counts = torch.arange(1, n + 1) if examples is None else examples
    ids = tuple(range(n))
    return Updates(matrix, ids, counts.to(torch.float64), reference=matrix.mean(dim=0))


@final
@dataclass(frozen=True)
class _Function:
    """A plain function as a rule without state."""

    function: Callable[[Any], Any]
    takes_arrays: bool

    @classmethod
    def of(cls, function: Any) -> _Function:
        try:
            function(rows().matrix.numpy())
        except (TypeError, AttributeError):  # it was written for tensors
            return cls(function, takes_arrays=False)
        except Exception:
            pass  # which the checks will run into
        return cls(function, takes_arrays=True)

    def init(self, d: int) -> State:
        return {}

    def __call__(
        self, updates: Updates, state: State, rng: np.random.Generator
    ) -> tuple[Tensor, State]:
        matrix = updates.matrix
        step = self.function(matrix.numpy() if self.takes_arrays else matrix)
        return torch.as_tensor(step).to(matrix.dtype), state


def _bounded_cohorts(clip_norm: float, equal: bool) -> Iterator[Updates]:
    """Cohorts of rows of norm `clip_norm` at most; the first row is the one that is taken away.

    `equal` says that all clients hold equally much; else some cohorts have one that claims more.
    """
    alike, boastful = torch.ones(CLIENTS), torch.ones(CLIENTS)
    boastful[0] = 1000
    direction = torch.zeros(NUMBERS)
    direction[0] = clip_norm
    for seed in range(8):
        matrix = rows(seed=seed).matrix
        longest = clip_norm * matrix / matrix.norm(dim=1, keepdim=True)
        shorter = longest * torch.rand(CLIENTS, 1, generator=torch_generator(seed))
        agreed = direction.repeat(CLIENTS, 1)
        against, alone, silent = agreed.clone(), torch.zeros_like(agreed), longest.clone()
        against[0], alone[0], silent[0] = -direction, direction, 0
        for cohort in (longest, shorter, agreed, against, alone, silent):
            for examples in (alike,) if equal else (alike, boastful):
                yield sent(cohort, examples)


def _step(rule: Aggregator, updates: Updates) -> Tensor:
    return _call(rule, updates)[0]


def _call(rule: Aggregator, updates: Updates, state: State | None = None) -> tuple[Tensor, State]:
    """The rule's answer to rows that it has to serve."""
    n = len(updates)
    try:
        return _outcome(rule, updates, f"{n} clients", state)
    except InputError as error:
        raise AssertionError(f"the rule refuses {n} ordinary clients: {error}") from error


def _outcome(
    rule: Aggregator, updates: Updates, of: str, state: State | None = None
) -> tuple[Tensor, State]:
    (n, d), version = updates.matrix.shape, updates.matrix._version
    try:
        before = rule.init(d) if state is None else state
        answer = rule(updates, before, generator(0, "check"))
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise AssertionError(f"the rule fails on the rows of {of}, [n, {d}]: {reason}") from error
    whole = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], Tensor)
    _require(
        whole,
        f"a rule must give (step, state), the step a tensor [d]; it has given {_kind(answer)}",
    )
    step, after = answer
    _require(
        tuple(step.shape) == (d,) and step.layout == torch.strided,
        f"rows of shape [{n}, {d}] must give a step of shape [{d}], not {list(step.shape)}"
        + ("" if step.layout == torch.strided else f" {step.layout}"),
    )
    _require(
        step.dtype == torch.float32,
        f"the step must be float32 as the rows are, not {step.dtype}",
    )
    _require(not step.requires_grad, "the step must come without a gradient (.detach())")
    _require(
        isinstance(after, Mapping) and all(isinstance(v, Tensor) for v in after.values()),
        f"a rule must give a mapping from names to tensors as its state, not {after!r}",
    )
    _require(updates.matrix._version == version, WRITTEN)
    return answer


def _kind(answer: object) -> str:
    if isinstance(answer, tuple):
        return f"({', '.join(_kind(item) for item in answer)})"
    return type(answer).__name__


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of the largest number."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1))


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


@contextmanager
def _global_generators() -> Iterator[Callable[[], dict[str, bool]]]:
    """Gives a function that says which global generators are as they were; restores them all."""
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def untouched() -> dict[str, bool]:
        now = np.random.get_state()
        return {
            "torch": torch.equal(torch.get_rng_state(), of_torch),
            "NumPy": all(np.array_equal(a, b) for a, b in zip(now, of_numpy, strict=True)),
            "Python's random": random.getstate() == of_python,
        }

    try:
        yield untouched
    finally:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
