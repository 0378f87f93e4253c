"""All mechanisms: where the noise comes from, and arguments that make no sense."""

import math

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.privacy.none import NoPrivacy
from tests.support.mechanisms import (
    client_level,
    local_gaussian,
    local_laplace,
    released,
    rng,
    rows,
)
from tests.support.updates import updates


@pytest.mark.parametrize(
    "make", [client_level, local_gaussian, local_laplace], ids=["central", "gaussian", "laplace"]
)
def test_the_systems_noise_is_new_every_time_and_the_seeds_noise_is_not(make):
    def noise(privacy):
        sent = privacy.on_client(updates(torch.zeros(1, 50)), privacy.init(50), rng())
        return released(privacy, sent)[0]

    noisy = {"noise_multiplier": 1.0} if make is client_level else {}
    seeded, system = (make(noise_seed=seed, **noisy) for seed in ("task", "os"))
    assert torch.equal(noise(seeded), noise(seeded))
    first, second = noise(system), noise(system)
    assert not torch.equal(first, second)
    assert not torch.equal(first, noise(seeded))
    assert first.isfinite().all()


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        *((client_level, "clip_norm", v) for v in (0.0, -1.0, math.inf, math.nan)),
        *((client_level, "noise_multiplier", v) for v in (-1.0, math.inf, math.nan)),
        *((client_level, "expected_cohort", v) for v in (0, -3, 2.5)),
        *((client_level, "target_quantile", v) for v in (-0.1, 1.1, math.nan)),
        *((client_level, "clip_learning_rate", v) for v in (0.0, math.inf)),
        *((client_level, "count_noise", v) for v in (-1.0, math.nan)),
        (client_level, "noise_seed", "system"),
        *((local_gaussian, "clip_norm", v) for v in (0.0, math.inf, math.nan)),
        *((local_gaussian, "noise_multiplier", v) for v in (-1.0, math.nan, None)),
        (local_gaussian, "adjacency", "replace"),
        (local_gaussian, "noise_seed", "seed"),
        *((local_laplace, "clip_norm_l1", v) for v in (0.0, math.inf, math.nan)),
        *((local_laplace, "epsilon_per_release", v) for v in (0.0, -1.0, math.inf, math.nan)),
        (local_laplace, "adjacency", "zero_out"),
        (local_laplace, "noise_seed", "none"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(make, key, value):
    with pytest.raises(InputError) as error:
        make(**{key: value})
    assert error.value.key == key


def test_no_privacy_leaves_everything_alone():
    given, step = updates(rows()), rows(1)[0]
    privacy = NoPrivacy()
    state = privacy.init(1000)
    assert privacy.on_client(given, state, rng()) is given
    assert privacy.on_receipt(given, state) is given
    assert privacy.on_step(step, given, state, rng()) == (step, state)
