"""What a client's training returns, maybe somebody's own, is a report of numbers and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.protocols import Trainer
from fedexp.core.text import called, is_name
from fedexp.core.types import ClientReport


def check_report(report: object, trainer: Trainer) -> None:
    """Raise InputError for what is no report, or holds something else than numbers and tensors.

    A client without an example trains on nothing: such a count would weigh its row with 0 or less.
    """
    wrong = ""
    if not isinstance(report, ClientReport):
        wrong = f"must return a ClientReport, and returned a {type(report).__name__}"
    elif not _is_count(report.num_examples) or report.num_examples < 1:
        wrong = f"must report num_examples of 1 or above, and reported {report.num_examples!r}"
    elif not _is_count(report.processed) or report.processed < 0:
        wrong = f"must report processed examples, 0 or above, and reported {report.processed!r}"
    elif not isinstance(report.metrics, Mapping):
        wrong = f"must report metrics as a dict, and reported a {type(report.metrics).__name__}"
    elif unnamed := [name for name in report.metrics if not is_name(name)]:
        wrong = f"must report metrics with names on one line, and {unnamed[0]!r} is none"
    elif odd := [name for name, value in report.metrics.items() if not _is_figure(value)]:
        wrong = f"must report metrics that are numbers, and {odd[0]} is {report.metrics[odd[0]]!r}"
    elif not (_are_tensors(report.sent) and _are_tensors(report.state)):
        wrong = "must report what it sends and what it keeps as dicts of tensors"
    if wrong:
        raise InputError(" ".join(wrong.split()), "training", called(trainer))


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_figure(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.dim() == 0)


def _are_tensors(named: object) -> bool:
    return isinstance(named, Mapping) and all(isinstance(t, Tensor) for t in named.values())
