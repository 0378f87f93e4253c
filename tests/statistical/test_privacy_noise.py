"""Noise has the law and the size that an accountant takes it to have.

A Kolmogorov-Smirnov test on 40,000 fixed draws: it passes at the right scale and fails at two
thirds and three halves of it.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import kstest, laplace, norm

from fedexp.core.rng import generator
from fedexp.privacy.client_level import ClientLevel
from fedexp.privacy.local import LocalGaussian, LocalLaplace
from tests.support.updates import updates

D = 40_000
CLIP_NORM = 0.7
EXPECTED = 10
SEEDS = pytest.mark.parametrize("noise_seed", ["task", "os"])


def rows(n, d=D):
    return 0.01 * torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def assert_has_scale(noise, law, scale):
    noise = np.asarray(noise, dtype=np.float64)
    # 1e-6: noise from the operating system differs from run to run, and a test must not.
    assert kstest(noise, law(scale=scale).cdf).pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert kstest(noise, law(scale=scale * wrong).cdf).pvalue < 1e-20


def central(**changes):
    arguments = {
        "sensitivity": lambda clip_norm: clip_norm,
        "clip_norm": CLIP_NORM,
        "noise_multiplier": 1.3,
        "expected_cohort": EXPECTED,
        "adaptive": False,
        "target_quantile": 0.5,
        "clip_learning_rate": 0.2,
        "count_noise": None,
        "noise_seed": "task",
    }
    return ClientLevel(**{**arguments, **changes})


def release_less_the_sum(privacy, n, seed=0):
    """The release of n clients minus what it would be without noise, `[D]`."""
    state = privacy.init(D)
    received = privacy.on_receipt(updates(rows(n)), state)
    step = received.matrix.sum(dim=0) / max(n, 1)
    released, _ = privacy.on_step(step, received, state, generator(seed, "server_noise", 0))
    return released - received.matrix.sum(dim=0) / EXPECTED


@SEEDS
@pytest.mark.parametrize("n", [0, 3, 10, 25])
def test_central_noise_is_z_c_on_the_sum_and_z_c_over_m_on_the_release(n, noise_seed):
    noise = release_less_the_sum(central(noise_seed=noise_seed), n)
    assert_has_scale(noise, norm, 1.3 * CLIP_NORM / EXPECTED)
    assert_has_scale(EXPECTED * noise, norm, 1.3 * CLIP_NORM)


def test_adaptive_clipping_pays_for_its_count_with_more_noise_on_the_sum():
    privacy = central(adaptive=True, count_noise=0.75)
    z_delta = (1.3**-2 - 1.5**-2) ** -0.5  # 2.61: twice the noise
    assert_has_scale(EXPECTED * release_less_the_sum(privacy, 8), norm, z_delta * CLIP_NORM)


@pytest.mark.parametrize("n", [0, 8])
def test_the_count_has_noise_of_its_own_and_of_its_own_size_over_the_expected_cohort(n):
    privacy = central(adaptive=True, noise_multiplier=0.2, count_noise=0.75)
    state = privacy.init(3)
    received = privacy.on_receipt(updates(rows(n, d=3)), state)  # all of them short
    noise, steps = [], []
    for r in range(4000):
        step, after = privacy.on_step(torch.zeros(3), received, state, generator(0, "noise", r))
        share = 0.5 - math.log(float(after["clip_norm"]) / CLIP_NORM) / 0.2
        noise.append(EXPECTED * (share - 0.5) - n / 2)
        steps.append(step.tolist())
    assert_has_scale(noise, norm, 0.75)
    # Were it the noise on the sum again, whoever sees the clip norm could take it off the step.
    correlations = np.corrcoef(np.column_stack([noise, steps]), rowvar=False)[0, 1:]
    assert np.abs(correlations).max() < 5 / math.sqrt(4000)


def test_every_round_draws_noise_of_its_own():
    first, second = (release_less_the_sum(central(), 5, seed) for seed in (0, 1))
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) < 5 / math.sqrt(D)


@SEEDS
@pytest.mark.parametrize(("adjacency", "diameter"), [("replace_one", 2), ("add_remove", 1)])
def test_local_gaussian_noise(adjacency, diameter, noise_seed):
    privacy = LocalGaussian(CLIP_NORM, 0.9, None, None, adjacency, noise_seed)
    assert_is_local_noise(privacy, norm, 0.9 * diameter * CLIP_NORM)


@SEEDS
@pytest.mark.parametrize(("adjacency", "diameter"), [("replace_one", 2), ("add_remove", 1)])
def test_local_laplace_noise(adjacency, diameter, noise_seed):
    privacy = LocalLaplace(CLIP_NORM, 1.7, adjacency, noise_seed)
    assert_is_local_noise(privacy, laplace, diameter * CLIP_NORM / 1.7)


def assert_is_local_noise(privacy, law, scale):
    """Three clients' noise on rows of zeros: the right size, and independent between clients."""
    sent = privacy.on_client(updates(torch.zeros(3, D)), {}, generator(0, "client_noise", 0))
    for row in sent.matrix:
        assert_has_scale(row, law, scale)
    correlations = np.corrcoef(sent.matrix.numpy())[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 6 / math.sqrt(D)


def test_local_noise_is_added_to_the_clipped_row():
    given = updates(100 * rows(2))
    noise = partial(generator, 0, "client_noise")
    privacy = LocalGaussian(CLIP_NORM, 0.01, None, None, "add_remove", "task")
    sent = privacy.on_client(given, {}, noise(0))
    clipped = given.matrix * (CLIP_NORM / given.matrix.norm(dim=1, keepdim=True))
    assert_has_scale((sent.matrix - clipped).flatten(), norm, 0.01 * CLIP_NORM)


def test_epsilon_and_delta_of_a_release_set_the_noise():
    # Gaussian noise of one sensitivity is (4.377178, 1e-5)-DP, and no more.
    privacy = LocalGaussian(CLIP_NORM, None, 4.377178, 1e-5, "replace_one", "task")
    assert_is_local_noise(privacy, norm, 2 * CLIP_NORM)
