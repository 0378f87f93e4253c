"""How often a run is evaluated: every so many rounds, or (auto) within a share of the time."""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.config.parts import Config
from fedexp.core.capabilities import ends_no_run
from fedexp.core.checks import InputError, at_least
from fedexp.core.observer import Observer
from fedexp.federation.evaluation import Pace, ShareOfTime, Unhurried

BY_COST, SHARE_OF_TIME = "auto", 0.2  # eval_every=auto: evaluations take at most this share


def check_pace(config: Config) -> None:
    """Raise InputError unless `eval_every` is a number of rounds, or auto."""
    if config["eval_every"] == BY_COST:
        return
    try:
        at_least(1, eval_every=config["eval_every"])
    except InputError as error:
        raise InputError(f"{error.reason}, or auto", error.key, error.value) from None


def refuse_by_the_clock(config: Config, observers: Sequence[Observer]) -> None:
    """Raise InputError where how fast the machine is would decide when a run ends."""
    if config["eval_every"] == BY_COST and not all(map(ends_no_run, observers)):
        raise InputError(
            "the round in which early stopping ends the run would depend on how fast the machine "
            "is; give a number of rounds, or early_stopping.patience=null",
            "eval_every",
            BY_COST,
        )


def pace_of(config: Config) -> tuple[int, Pace]:
    """Every how many rounds an evaluation is due, and who says whether it is made."""
    if config["eval_every"] == BY_COST:
        return 1, ShareOfTime(SHARE_OF_TIME)
    return config["eval_every"], Unhurried()


def pace_remarks(config: Config) -> tuple[str, ...]:
    """What a person should know of it, and of keys that go by evaluations and change nothing."""
    said = []
    if config["eval_every"] == BY_COST:
        said.append(
            "eval_every=auto: which rounds are evaluated, and so which of them is called the best "
            "and what means over the last ones are of, depends on how fast this machine is; the "
            "models and what is measured of them do not"
        )
    last, rounds = config["mean_last_rounds"], config["rounds"]
    if last is not None and last > rounds:
        said.append(f"mean_last_rounds={last}: is a mean over all there are, rounds={rounds}")
    stopping = config["early_stopping"]
    if stopping.get("patience", 1) is None and stopping.get("min_delta"):
        key = f"early_stopping.min_delta={stopping['min_delta']}"
        said.append(f"{key}: changes nothing while early_stopping.patience is null")
    return tuple(said)
