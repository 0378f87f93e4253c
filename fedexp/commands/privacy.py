"""`fedexp privacy`: what training would cost, on paper, before a run pays for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedexp.commands.answers import answer
from fedexp.commands.arguments import EXIT_OK, parser
from fedexp.core.checks import InputError, at_least, one_of, positive
from fedexp.privacy.accounting import (
    ACCOUNTANTS,
    Event,
    Guarantee,
    check_delta,
    delta_remark,
    epsilon,
)
from fedexp.privacy.calibration import calibrated_noise_multiplier
from fedexp.privacy.fixed_size import fixed_size_epsilon

Sampling = Literal["poisson", "shuffled", "fixed"]
SAMPLINGS: tuple[Sampling, ...] = ("poisson", "shuffled", "fixed")
NEIGHBOURS: Mapping[str, str] = {
    "poisson": "one member added or removed",
    "shuffled": "one member's share zeroed",
    "fixed": "one member replaced",
}
SHUFFLED = (
    "shuffled batches are not Poisson samples: no amplification is proven for them, "
    "so every step counts in full (q = 1)"
)
FIXED = (
    "neighbours have one member replaced, which moves the sum by twice the clip norm; "
    "not comparable with an epsilon for one added or removed"
)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser("privacy", "What training would cost, on paper: epsilon, or the noise for it.")
    number, whole = {"type": float}, {"type": int}
    for option, kind, letter, meaning in (
        ("--delta", number, "D", "of the guarantee; below 1/n of what is protected"),
        ("--noise-multiplier", number, "Z", "noise on a sum, in units of the clip norm"),
        ("--target-epsilon", number, "EPSILON", "asks for the noise, in place of Z"),
        ("--sample-rate", number, "Q", "probability of taking part in a step"),
        ("--steps", whole, "T", "how many steps (rounds, where clients are protected)"),
        ("--examples", whole, "N", "with --batch-size, in place of --sample-rate"),
        ("--batch-size", whole, "B", "expected size of a batch"),
        ("--epochs", whole, "E", "in place of --steps"),
    ):
        options.add_argument(
            option, metavar=letter, help=meaning, required=option == "--delta", **kind
        )
    options.add_argument(
        "--sampling", default="poisson", help="poisson, shuffled or fixed (default: %(default)s)"
    )
    cost = worked_out(**vars(options.parse_args(arguments)))
    answer(cost.text(), cost.document)
    return EXIT_OK


@dataclass(frozen=True)
class _Plan:
    """How many releases there are, and what share of the members each one uses."""

    sample_rate: float
    steps: int
    population: int | None
    batch_size: int | None


@dataclass(frozen=True)
class Cost:
    """What was asked, and the answers: by accountant, epsilon of a noise, or noise for a target."""

    sampling: str
    plan: _Plan
    delta: float
    noise_multiplier: float | None
    target_epsilon: float | None
    epsilon: Mapping[str, float]
    noise: Mapping[str, float]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Figures are rounded up: a printed epsilon is never too small, nor is a printed noise."""
        lines = [_headline(self.sampling, self.plan, self.delta)]
        if self.noise_multiplier is not None:
            asked = f"for noise multiplier {self.noise_multiplier:g}"
            lines += ["", f"{'accountant':<12}{'epsilon':>12}   {asked}"]
            lines += [f"{name:<12}{_rounded_up(v):>12}" for name, v in self.epsilon.items()]
        if self.target_epsilon is not None:
            asked = f"for epsilon <= {self.target_epsilon:g}"
            lines += ["", f"{'accountant':<12}{'noise':>12}   {asked}"]
            lines += [f"{name:<12}{_rounded_up(v):>12}" for name, v in self.noise.items()]
        return "\n".join([*lines, "", *(f"note: {note}" for note in self.notes)]).rstrip()

    def document(self) -> dict[str, Any]:
        """The same for a program; nothing is rounded."""
        return {
            "schema": "privacy/1",
            "sampling": self.sampling,
            "neighbours": NEIGHBOURS[self.sampling],
            "sample_rate": self.plan.sample_rate,
            "steps": self.plan.steps,
            "examples": self.plan.population,
            "batch_size": self.plan.batch_size,
            "delta": self.delta,
            "noise_multiplier": self.noise_multiplier,
            "target_epsilon": self.target_epsilon,
            "epsilon": dict(self.epsilon),
            "noise": dict(self.noise),
            "notes": list(self.notes),
        }


def worked_out(
    *,
    delta: float,
    sampling: str,
    noise_multiplier: float | None,
    target_epsilon: float | None,
    sample_rate: float | None,
    steps: int | None,
    examples: int | None,
    batch_size: int | None,
    epochs: int | None,
) -> Cost:
    """Epsilon for the noise, and the noise for the target epsilon, as asked.

    Args:
        delta: of the guarantee.
        sampling: "poisson", "shuffled", or "fixed" (batches or cohorts of a fixed size).
        noise_multiplier: noise on the sum in units of the clip norm, to be told epsilon.
        target_epsilon: to be told the noise.
        sample_rate: q, together with `steps`; in place of the next three.
        steps: how many releases; not together with `epochs`.
        examples: n, the examples of a client, or the clients of a federation.
        batch_size: how many of them a step uses, in expectation.
        epochs: how often each is used, in expectation.

    Raises:
        InputError: an argument is missing, out of range or there twice; or no noise is enough.
    """
    one_of(SAMPLINGS, sampling=sampling)
    check_delta(delta)
    if noise_multiplier is None and target_epsilon is None:
        raise InputError("give --noise-multiplier, --target-epsilon or both")
    plan = _plan(sampling, sample_rate, steps, examples, batch_size, epochs)
    if sampling == "fixed" and target_epsilon is not None:
        raise InputError("is for sampling=poisson or shuffled", "target_epsilon", target_epsilon)
    found: Mapping[str, Guarantee] = {}
    noise: dict[str, float] = {}
    if noise_multiplier is not None:
        found = _epsilons(sampling, plan, noise_multiplier, delta)
    notes = list(dict.fromkeys(g.note for g in found.values() if g.note))
    if target_epsilon is not None:
        positive(target_epsilon=target_epsilon)
        for name in ACCOUNTANTS:
            noise[name] = calibrated_noise_multiplier(
                target_epsilon, delta, plan.sample_rate, plan.steps, name
            )
    notes += {"shuffled": [SHUFFLED], "fixed": [FIXED]}.get(sampling, [])
    if plan.population is not None and (remark := delta_remark(delta, plan.population, "members")):
        notes.append(remark)
    return Cost(
        sampling=sampling,
        plan=plan,
        delta=delta,
        noise_multiplier=noise_multiplier,
        target_epsilon=target_epsilon,
        epsilon={name: guarantee.epsilon for name, guarantee in found.items()},
        noise=noise,
        notes=tuple(notes),
    )


def _plan(
    sampling: str,
    sample_rate: float | None,
    steps: int | None,
    examples: int | None,
    batch_size: int | None,
    epochs: int | None,
) -> _Plan:
    by_size = examples is not None and batch_size is not None
    if sampling == "fixed" and not by_size:
        raise InputError("needs --examples and --batch-size", "sampling", sampling)
    if sample_rate is not None and (batch_size is not None or epochs is not None):
        raise InputError("not together with --batch-size or --epochs", "sample_rate", sample_rate)
    if sampling == "shuffled" and sample_rate is not None:
        raise InputError(f"has no effect: {SHUFFLED}; leave it out", "sample_rate", sample_rate)
    if steps is not None and epochs is not None:
        raise InputError("not together with --steps", "epochs", epochs)
    for name, value in (("examples", examples), ("batch_size", batch_size), ("epochs", epochs)):
        if value is not None:
            at_least(1, **{name: value})
    batches = None
    if examples is not None and batch_size is not None:
        if batch_size > examples:
            raise InputError(f"there are {examples} examples", "batch_size", batch_size)
        batches = math.ceil(examples / batch_size)
        sample_rate = batch_size / examples if sampling == "fixed" else 1 / batches
    if epochs is not None and batches is not None:
        steps = epochs * batches
    if sampling == "shuffled":
        sample_rate = 1.0
    if sample_rate is None or steps is None:
        raise InputError(
            "give --sample-rate and --steps, or --examples, --batch-size and --epochs (or --steps)"
        )
    at_least(1, steps=steps)
    positive(sample_rate=sample_rate)
    event = Event(0.0, sample_rate, steps)  # checks both
    return _Plan(event.sample_rate, event.steps, examples, batch_size)


def _epsilons(
    sampling: str, plan: _Plan, noise_multiplier: float, delta: float
) -> dict[str, Guarantee]:
    if sampling == "fixed":
        assert plan.population is not None
        assert plan.batch_size is not None
        sizes = (plan.population, plan.batch_size, plan.steps)
        return {"rdp": fixed_size_epsilon(noise_multiplier, *sizes, delta)}
    history = [Event(noise_multiplier, plan.sample_rate, plan.steps)]
    return {name: epsilon(history, delta, name) for name in ACCOUNTANTS}


def _headline(sampling: str, plan: _Plan, delta: float) -> str:
    drawn = {
        "poisson": f"a Poisson sample at rate {plan.sample_rate:.6g}",
        "shuffled": "a batch of shuffled data",
        "fixed": f"{plan.batch_size} of {plan.population}, drawn without replacement",
    }[sampling]
    steps = f"{plan.steps} steps, each on {drawn}; delta {delta:g}"
    return f"{steps}; neighbours: {NEIGHBOURS[sampling]}"


def _rounded_up(value: float) -> str:
    return f"{math.ceil(value * 1e4) / 1e4:.4f}" if value < 1e4 else f"{value:.2g}"
