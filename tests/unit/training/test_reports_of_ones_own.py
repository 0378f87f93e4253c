"""What a training part of one's own reports of a client is refused by name if it is no report."""

from dataclasses import replace

import pytest
import torch

from fedexp.backends.workspace import check_report
from fedexp.core.checks import InputError
from fedexp.core.types import ClientReport

GOOD = ClientReport(3, 30, {"loss": 0.5, "on_device": torch.tensor(1.0)})


class Trainer:
    pass


def test_a_report_of_numbers_is_one():
    check_report(GOOD, Trainer())


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (None, "must return a ClientReport, and returned a NoneType"),
        (replace(GOOD, num_examples=0), "must report num_examples of 1 or above, and reported 0"),
        (replace(GOOD, num_examples=float("nan")), "and reported nan"),
        (replace(GOOD, processed=None), "must report processed examples, 0 or above"),
        (replace(GOOD, metrics=None), "must report metrics as a dict, and reported a NoneType"),
        (replace(GOOD, metrics={"loss": None}), "metrics that are numbers, and loss is None"),
        (replace(GOOD, metrics={"loss": torch.ones(2)}), "and loss is tensor"),
        (replace(GOOD, state={"seen": 3}), "what it sends and what it keeps as dicts of tensors"),
    ],
)
def test_what_is_no_report(report, words):
    with pytest.raises(InputError, match=r"^training=\S*Trainer: must ") as refused:
        check_report(report, Trainer())
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
