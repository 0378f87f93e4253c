"""The judge of pictures: learns, is what its seed says, and stands noise."""

from pathlib import Path

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.data.loader import load
from fedexp.leakage.model.evaluation_classifier import MOST_EXAMPLES, NOISE_DEVIATION
from fedexp.leakage.model.evaluation_classifier import EvaluationClassifier as Judge
from tests.support.composing import part


@pytest.fixture(scope="module")
def digits():
    return load(part("dataset", "digits"), Path())


@pytest.fixture(scope="module")
def judge(digits):
    return Judge.fit(digits.train, 10, seed=0)


def test_it_reads_digits_that_it_has_not_seen(digits, judge):
    assert judge.accuracy(digits.test) > 0.95
    answers = judge.predict(digits.test.x)
    assert answers.dtype == torch.int64
    assert judge.accuracy(digits.test) == float((answers == digits.test.y).double().mean())


def test_it_reads_noisy_ones_nearly_as_well(digits, judge):
    g = torch.Generator().manual_seed(0)
    noise = NOISE_DEVIATION * torch.randn(digits.test.x.shape, generator=g)
    noisy = Split((digits.test.x + noise).clamp(0, 1), digits.test.y)
    assert judge.accuracy(noisy) > 0.85


def test_the_seed_decides(digits, judge):
    again = Judge.fit(digits.train, 10, seed=0)
    other = Judge.fit(digits.train, 10, seed=1)
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(judge.predict(noise), again.predict(noise))
    scores = [j.machine.decision_function(noise.flatten(1).numpy()) for j in (judge, other)]
    assert (scores[0] != scores[1]).any()


def test_only_so_many_examples_are_used():
    g = torch.Generator().manual_seed(0)
    n = 2 * MOST_EXAMPLES
    y = torch.arange(n) % 2
    split = Split(
        (0.25 + 0.5 * y).view(-1, 1, 1, 1) + 0.01 * torch.rand(n, 1, 1, 1, generator=g), y
    )
    judge = Judge.fit(split, 2, seed=0)
    assert judge.machine.shape_fit_[0] == 2 * MOST_EXAMPLES  # each once clean and once noisy
    assert judge.accuracy(split) == 1.0


@pytest.mark.parametrize(("labels", "num_classes"), [([], 10), ([3, 3, 3], 10), ([0, 1, 2], 2)])
def test_what_teaches_nothing_is_refused(labels, num_classes):
    split = Split(torch.rand(len(labels), 1, 8, 8), torch.tensor(labels, dtype=torch.int64))
    with pytest.raises(InputError, match="two or more"):
        Judge.fit(split, num_classes, seed=0)
