"""What a training part of one's own reports of a client is refused by name if it is no report."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.backends.workspace import check_report
from fedexp.core.checks import InputError
from fedexp.core.types import ClientReport, ClientTask, Updates

GOOD = ClientReport(3, 30, {"loss": 0.5, "on_device": torch.tensor(1.0)})


class Trainer:
    pass


def test_numbers_of_numpy_are_recorded_as_pythons():
    loss = {"loss": np.mean([0.25, 0.5]), "rate": np.float32(0.5), "on_device": torch.tensor(1.0)}
    task = ClientTask(0, torch.zeros(1), 0, 0)
    (metrics,) = Updates.of(torch.zeros(1, 1), [task], [replace(GOOD, metrics=loss)]).metrics
    assert metrics == {"loss": 0.375, "rate": 0.5, "on_device": 1.0}
    assert {type(value) for value in metrics.values()} == {float}


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
        (replace(GOOD, metrics={3: 0.5}), "metrics with names on one line, and 3 is none"),
        (replace(GOOD, metrics={"": 0.5}), "and '' is none"),
        (replace(GOOD, metrics={"a\nb": 0.5}), "and 'a\\nb' is none"),
        (replace(GOOD, state={"seen": 3}), "what it sends and what it keeps as dicts of tensors"),
    ],
)
def test_what_is_no_report(report, words):
    with pytest.raises(InputError, match=r"^training=\S*Trainer: must ") as refused:
        check_report(report, Trainer())
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
