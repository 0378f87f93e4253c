"""One sum that was attacked says what came out of it, and nothing of the next one."""

import numpy as np
import pytest
import torch

from fedexp.leakage.updates.baselines import CLASS_MEAN
from fedexp.leakage.updates.inversion import FOUND, _Judged

METRICS = ("psnr_db", "ssim", "mse", "reconstructed", "identified")


def judged(observations, found):
    """Images of some observations, with what was found of each and a guess of 10 dB."""
    n = len(observations)
    scores = {
        FOUND: {metric: np.full(n, 0.5) for metric in METRICS} | {"psnr_db": np.array(found)},
        CLASS_MEAN: {metric: np.full(n, 0.5) for metric in METRICS} | {"psnr_db": np.full(n, 10.0)},
    }
    images, labels = torch.zeros(n, 1, 2, 2), np.ones(len(set(observations)))
    return _Judged(3, images, images, scores, labels, np.array(observations), seed=0)


def test_of_one_there_is_no_interval_and_no_verdict():
    said = judged([0, 0, 0], [30.0, 31.0, 29.0]).conclusion()
    assert "difference +20.0 dB; of one observation alone" in said
    assert "nan" not in said
    assert "leak images" not in said
    assert "no better than guesses" not in said


@pytest.mark.parametrize(
    ("found", "verdict"),
    [([30.0, 31.0, 29.0, 30.0], "the updates leak images"), ([9.0, 8.0, 9.0, 8.0], "no better")],
)
def test_of_several_there_is(found, verdict):
    said = judged([0, 1, 2, 3], found).conclusion()
    assert verdict in said
    assert "dB [" in said
