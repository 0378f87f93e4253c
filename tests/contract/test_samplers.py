"""What every sampler of conf/sampler must keep: a cohort is a sorted set of clients."""

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from tests.support.composing import choices, part


@pytest.fixture(params=choices("sampler"))
def choice(request):
    return request.param


def sampler(choice, n_clients, cohort_size):
    return part("sampler", choice, f"n_clients={n_clients}", f"cohort_size={cohort_size}")


def left_out(choice):
    """Who is never drawn."""
    return {0} if choice == "all_but" else set()


def test_the_configs_were_found():
    assert {"full", "uniform", "poisson"} <= set(choices("sampler"))


def is_cohort(cohort, n_clients):
    assert isinstance(cohort, np.ndarray)
    assert cohort.ndim == 1
    assert np.issubdtype(cohort.dtype, np.integer)
    assert (np.diff(cohort) > 0).all()
    return bool(((cohort >= 0) & (cohort < n_clients)).all())


@pytest.mark.parametrize("n_clients", [1, 2, 17])
def test_everybody_may_be_asked_for(choice, n_clients):
    draw = sampler(choice, n_clients, n_clients)
    for seed in range(20):
        cohort = draw(n_clients, np.random.default_rng(seed))
        assert is_cohort(cohort, n_clients)
        assert set(cohort.tolist()) == set(range(n_clients)) - left_out(choice)


def test_a_smaller_cohort_is_drawn_or_refused_by_the_sampler_that_takes_all(choice):
    draw = sampler(choice, 17, 4)
    if choice == "full":
        with pytest.raises(InputError, match="cohort_size=4"):
            draw(17, np.random.default_rng(0))
        return
    cohorts = [draw(17, np.random.default_rng(seed)) for seed in range(200)]
    assert all(is_cohort(cohort, 17) for cohort in cohorts)
    assert set(np.concatenate(cohorts).tolist()) == set(range(17)) - left_out(choice)
    assert 3.4 < np.mean([len(cohort) for cohort in cohorts]) < 4.6


def test_the_stream_decides(choice):
    size = 17 if choice == "full" else 4
    draw = sampler(choice, 17, size)
    first, again = (draw(17, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, again)
    if size < 17:
        others = [draw(17, np.random.default_rng(seed)) for seed in range(2, 12)]
        assert any(not np.array_equal(first, other) for other in others)


def test_global_generators_play_no_part(choice):
    np.random.seed(0)
    torch.manual_seed(0)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    sampler(choice, 9, 9)(9, np.random.default_rng(0))
    assert np.array_equal(np.random.get_state()[1], np_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_a_client_that_there_is_not_cannot_be_left_out():
    with pytest.raises(InputError, match="left_out=7: there are 5 clients"):
        part("sampler", "all_but", "sampler.left_out=7")(5, np.random.default_rng(0))


def test_a_cohort_larger_than_the_federation_is_refused(choice):
    with pytest.raises(InputError) as refusal:
        sampler(choice, 5, 6)(5, np.random.default_rng(0))
    assert refusal.value.key == "cohort_size"
    assert "5" in refusal.value.reason
