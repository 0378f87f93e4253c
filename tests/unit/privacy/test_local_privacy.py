"""Local mechanisms: the size of their noise, who adds it, and what they refuse."""

import math
from dataclasses import replace

import pytest
import torch

from fedexp.config.parts import Parts
from fedexp.core.checks import InputError
from fedexp.privacy.clipping import clip_rows
from tests.support.mechanisms import BROKEN, local_gaussian, local_laplace, rng, rows
from tests.support.updates import updates


@pytest.mark.parametrize(("adjacency", "diameter"), [("replace_one", 2), ("add_remove", 1)])
def test_the_size_of_local_noise_by_hand(adjacency, diameter):
    gaussian = local_gaussian(clip_norm=0.5, noise_multiplier=3.0, adjacency=adjacency)
    assert gaussian.sensitivity == 0.5 * diameter
    assert gaussian.noise_std == 1.5 * diameter
    assert gaussian.noise_per_sensitivity == 3.0
    laplace = local_laplace(clip_norm_l1=0.5, epsilon_per_release=4.0, adjacency=adjacency)
    assert laplace.sensitivity == 0.5 * diameter
    assert laplace.noise_scale == 0.125 * diameter


def test_two_rows_before_noise_are_no_further_apart_than_the_sensitivity():
    worst = torch.zeros(2, 50)
    worst[:, 0] = torch.tensor([1e30, -1e30])
    for d, given in ((50, worst), (1000, rows(40, scale=100.0))):
        l2 = clip_rows(given, 1.0).double()
        assert torch.cdist(l2, l2).max() <= local_gaussian(clip_norm=1.0).sensitivity, d
        l1 = clip_rows(given, 1.0, order=1).double()
        assert torch.cdist(l1, l1, p=1).max() <= local_laplace(clip_norm_l1=1.0).sensitivity, d
    assert torch.cdist(clip_rows(worst, 1.0), clip_rows(worst, 1.0)).max() == pytest.approx(2)


def test_a_local_row_without_noise_is_the_clipped_one():
    given = updates(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    sent = local_gaussian(clip_norm=2.5, noise_multiplier=0.0).on_client(given, {}, rng())
    torch.testing.assert_close(sent.matrix, torch.tensor([[1.5, 2.0], [0.3, 0.4]]))
    # A scale of 1e-12: next to nothing beside the row, clipped to an L1 norm of 3.5.
    sent = local_laplace(clip_norm_l1=3.5, epsilon_per_release=7e12).on_client(given, {}, rng())
    torch.testing.assert_close(sent.matrix, torch.tensor([[1.5, 2.0], [0.3, 0.4]]))


@pytest.mark.parametrize("privacy", [local_gaussian(), local_laplace()])
def test_a_clients_noise_does_not_depend_on_who_else_takes_part(privacy):
    def noise_of(clients, wanted):
        given = replace(updates(torch.zeros(len(clients), 100)), client_ids=clients)
        return privacy.on_client(given, {}, rng()).matrix[clients.index(wanted)]

    alone = noise_of((7,), 7)
    assert torch.equal(noise_of((3, 7), 7), alone)
    assert torch.equal(noise_of((7, 9, 12), 7), alone)
    assert not torch.equal(noise_of((3, 7), 3), alone)


@pytest.mark.parametrize("privacy", [local_gaussian(), local_laplace()])
@pytest.mark.parametrize("value", BROKEN)
def test_a_client_whose_training_diverged_sends_noise_like_any_other(privacy, value):
    broken, zeros = torch.full((1, 100), value), torch.zeros(1, 100)
    sent = privacy.on_client(updates(broken), {}, rng()).matrix
    assert torch.equal(sent, privacy.on_client(updates(zeros), {}, rng()).matrix)
    assert (sent != 0).all()


def test_the_number_of_examples_stays_with_a_local_client():
    for privacy in (local_gaussian(), local_laplace()):
        given = updates(rows(3), [1000.0, 1.0, 5.0])
        assert privacy.on_client(given, {}, rng()).num_examples.tolist() == [1, 1, 1]
        assert privacy.on_receipt(given, {}).num_examples.tolist() == [1, 1, 1]


def test_epsilon_and_delta_give_the_least_noise():
    privacy = local_gaussian(
        noise_multiplier=None, epsilon_per_release=4.377178, delta_per_release=1e-5, clip_norm=3.0
    )
    assert privacy.noise_per_sensitivity == pytest.approx(1.0, rel=1e-6)
    assert privacy.noise_std == pytest.approx(6.0, rel=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("delta_per_release", v) for v in (0.0, 1.0, math.nan)),
        *(("epsilon_per_release", v) for v in (0.0, math.inf)),
    ],
)
def test_an_epsilon_or_delta_that_no_noise_gives_is_refused(key, value):
    pair = {"epsilon_per_release": 1.0, "delta_per_release": 1e-5}
    with pytest.raises(InputError) as error:
        local_gaussian(**{"noise_multiplier": None, **pair, key: value})
    assert error.value.key == key


def test_noise_given_twice_is_refused():
    with pytest.raises(InputError, match="given twice"):
        local_gaussian(noise_multiplier=1.0, epsilon_per_release=1.0, delta_per_release=1e-5)
    with pytest.raises(InputError, match="not given"):
        local_gaussian(noise_multiplier=None, epsilon_per_release=1.0)


def test_laplace_noise_takes_no_l2_bound():
    node = {
        "_target_": "fedexp.privacy.local_dp.LocalLaplaceDP",
        "clip_norm": 1.0,
        "epsilon_per_release": 1.0,
        "adjacency": "replace_one",
        "noise_seed": "task",
    }
    with pytest.raises(InputError, match=r"privacy\.clip_norm=1\.0: .*; use clip_norm_l1"):
        Parts({"privacy": node})("privacy")
