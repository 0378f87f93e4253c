"""Examples as the model takes them: by the data, by known numbers, or as they are."""

import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.normalise import normalisation_of
from tests.support.composing import config_for

X = torch.rand(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
PART = Split(X, torch.zeros(6, dtype=torch.int64))


def test_by_the_training_part_to_mean_nought_and_deviation_one():
    scaled = normalisation_of({}, PART).x(X).transpose(0, 1).flatten(1)
    torch.testing.assert_close(scaled.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(1), torch.ones(2))


def test_not_at_all():
    torch.testing.assert_close(normalisation_of({"normalise": "none"}, PART).x(X), X)


def test_by_numbers_that_were_known_before():
    of_tutorials = normalisation_of({"normalise": "fixed"}, PART)
    torch.testing.assert_close(of_tutorials.x(X), (X - 0.5) / 0.5)
    node = {"normalise": "fixed", "fixed_mean": [0.1, 0.2], "fixed_deviation": [0.5, 2]}
    scaled = normalisation_of(node, PART).x(X)
    torch.testing.assert_close(scaled[:, 0], (X[:, 0] - 0.1) / 0.5)
    torch.testing.assert_close(scaled[:, 1], (X[:, 1] - 0.2) / 2)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"normalise": "mean"}, "dataset.normalise=mean"),
        ({"normalise": "none", "fixed_mean": 0.1}, "dataset.fixed_mean=0.1: has no effect"),
        ({"normalise": "fixed", "fixed_mean": [1, 2, 3]}, "dataset.fixed_mean"),
        ({"normalise": "fixed", "fixed_mean": "x"}, "dataset.fixed_mean=x"),
        ({"normalise": "fixed", "fixed_deviation": 0}, "dataset.fixed_deviation=0: must be above"),
        ({"normalise": "fixed", "fixed_deviation": float("nan")}, "dataset.fixed_deviation"),
    ],
)
def test_what_is_no_scale_is_refused(node, said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        normalisation_of(node, PART)


def test_a_run_takes_it():
    built = build(config_for("dataset.normalise=none", "train_examples=100"))
    assert built.normalisation.mean == 0
    assert built.normalisation.deviation == 1
