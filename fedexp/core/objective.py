"""Which way a validation metric is better, and which way a sweeper was told to go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NoReturn, final

Direction = Literal["maximize", "minimize"]
LOW_IS_GOOD = frozenset({"loss"})
HIGH_IS_GOOD = frozenset({"accuracy", "balanced_accuracy", "exact_match", "macro_f1", "auc"})
DIRECTION = "hydra.sweeper.direction"
DIRECTIONS = ("maximize", "minimize")


@final
class NoFigure(float):
    """NaN that refuses to be cast, as what a job gives a sweeper when it has no figure.

    Optuna's sweeper casts what it is given. Of what it cannot cast it makes a failed trial, and of
    a NaN the end of the sweep; other sweepers take a NaN.
    """

    def __float__(self) -> NoReturn:
        raise ValueError("the job gave no figure")


NO_FIGURE = NoFigure("nan")


def direction_of(metric: str) -> Direction:
    """In a sweeper's words.

    >>> direction_of("accuracy"), direction_of("loss")
    ('maximize', 'minimize')
    """
    return "minimize" if metric in LOW_IS_GOOD else "maximize"


def remark_on(metric: str) -> tuple[str, ...]:
    """What a person should know of an objective of which nobody has said which way it is better.

    >>> remark_on("accuracy")
    ()
    """
    if metric in LOW_IS_GOOD | HIGH_IS_GOOD:
        return ()
    return (
        f"objective={metric} is taken for a metric of which more is better: the best round goes by "
        "it, and so does a sweeper; if less is better, let the task measure its negative",
    )


def remark_on_direction(metric: str, told: str) -> str:
    """What a person should know who sends a sweeper where a metric is worse; else empty.

    >>> remark_on_direction("loss", "minimize"), remark_on_direction("my_own", "minimize")
    ('', '')
    >>> remark_on_direction("loss", "maximize")
    'hydra.sweeper.direction=maximize: less of objective=loss is better: the worst is looked for'
    """
    if metric not in LOW_IS_GOOD | HIGH_IS_GOOD or told == direction_of(metric):
        return ""
    better = "less" if metric in LOW_IS_GOOD else "more"
    return f"{DIRECTION}={told}: {better} of objective={metric} is better: the worst is looked for"


def told_direction(overrides: Sequence[str]) -> Direction | None:
    """What a command line says of the direction; None if it says nothing.

    >>> told_direction(["hydra/sweeper=optuna", "hydra.sweeper.direction=minimize"])
    'minimize'
    """
    said = [o.partition("=")[2] for o in overrides if o.lstrip("+").partition("=")[0] == DIRECTION]
    for direction in said[-1:]:
        return "minimize" if direction == "minimize" else "maximize"
    return None
