"""What a study of a finished run gives back: figures with what they are of, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset
from fedexp.core.findings import Findings
from fedexp.core.observer import Observer
from fedexp.leakage.victim import Victim

Progress = Callable[[float], None]
"""Called as the work goes on, with the share of it that is done, in [0, 1]."""


class Study(Protocol):
    """An attack on a finished run together with what judges it. It alone knows the truth."""

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Carry it out; same run and same settings, same findings, whatever ran before.

        Raises:
            InputError: this run cannot be studied so.
        """


@runtime_checkable
class SaysBeforehand(Protocol):
    """A study that can say what it will be able to see."""

    def beforehand(self, victim: Victim) -> str:
        """A sentence, printed before the study is carried out; "" for none."""


@runtime_checkable
class Watches(Protocol):
    """A study that has to see the rounds of a run as they happen."""

    def watch(self, victim: Victim) -> Observer:
        """Who keeps what the study will need; told of a round before the record is.

        Args:
            victim: the run that is about to start, or to go on, with its initial model only.

        Raises:
            InputError: the study cannot be made of this run.
        """


def refuse_other_than_images(dataset: Dataset) -> None:
    """Raise InputError unless the examples are images, which a study gives back or compares."""
    if not dataset.train.are_images:
        raise InputError(
            f"this study of leakage is about images [channels, height, width], and the examples "
            f"are {list(dataset.input_shape)}; use leakage=loss_threshold, lira or audit",
            "dataset",
            dataset.name,
        )


def refuse_several_labels(dataset: Dataset) -> None:
    """Raise InputError unless every example has one class, which a study asks for."""
    if not dataset.train.one_class:
        raise InputError(
            "this study of leakage needs one class an example, and these examples have any number "
            "of labels; use one that asks for none, such as leakage=audit of a run with "
            "privacy=client_dp",
            "dataset",
            dataset.name,
        )
