"""Noise on examples: its size and account by hand, once for all rounds; studies see truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.perturbation import examples_trained_on
from fedexp.core.protection import Plan, Protection
from fedexp.privacy.account import NoAccount
from fedexp.privacy.analytic_gaussian import delta_of
from fedexp.privacy.input_noise import InputGaussian, InputLaplace
from fedexp.privacy.none import NoPrivacy
from tests.support.composing import config_for, part
from tests.support.refusing import refusal

LAPLACE = InputLaplace(
    value_range=[0.0, 1.0], clip_norm_l1=None, noise_scale=2.0, target_epsilon=None
)
GAUSSIAN = InputGaussian(
    value_range=[0.0, 1.0], clip_norm=None, noise_std=2.0, delta=1e-5, target_epsilon=None
)
TINY = 1e-9  # noise that rounds away


def protected(mechanism, shape=(1, 4, 4)):
    plan = Plan(0, 5, None, (100,) * 10, 37, None, example_shape=shape)
    bare = Protection("trainer", NoPrivacy(), "channel", NoAccount(), mechanism)
    return mechanism.protect(plan, bare)


def epsilon(mechanism, shape=(1, 4, 4)):
    account = protected(mechanism, shape).account
    return account.epsilon(account.init())


def split(x):
    return Split(torch.as_tensor(x, dtype=torch.float32), torch.arange(len(x)) % 2)


def test_laplace_of_a_whole_image_by_hand():
    assert epsilon(LAPLACE) == 16 / 2
    assert epsilon(replace(LAPLACE, clip_norm_l1=3.0)) == 2 * 3 / 2
    assert epsilon(replace(LAPLACE, clip_norm_l1=30.0)) == 16 / 2  # no image is as long
    # What tutorials show, noise of scale 1 / "epsilon" with 1 for epsilon, on an image of MNIST.
    assert epsilon(replace(LAPLACE, noise_scale=1.0), (1, 28, 28)) == 784


def test_gaussian_of_a_whole_image_by_its_curve():
    for clip_norm, sensitivity in ((None, 4.0), (1.0, math.sqrt(2)), (9.0, 4.0)):
        spent = epsilon(replace(GAUSSIAN, clip_norm=clip_norm))
        assert delta_of(2.0 / sensitivity, spent) == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize("mechanism", [LAPLACE, GAUSSIAN], ids=["laplace", "gaussian"])
@pytest.mark.parametrize("target", [0.5, 8.0, 500.0])
def test_a_target_is_met_with_the_least_noise(mechanism, target):
    size = {"noise_scale": None} if mechanism is LAPLACE else {"noise_std": None}
    asked = replace(mechanism, target_epsilon=target, **size)
    assert epsilon(asked) == pytest.approx(target, rel=1e-6)
    settled = protected(asked).mechanism
    assert settled.target_epsilon is None
    assert epsilon(settled) == pytest.approx(target, rel=1e-6)


def test_rounds_cost_nothing_more():
    protection = protected(LAPLACE)
    account, state = protection.account, protection.account.init()
    assert account.at_most(state, [0, 1]) == account.charge(state, None, None) == state == {}
    assert not account.would_exceed(state, [0, 1])
    assert protection.trainer == "trainer"
    assert isinstance(protection.privacy, NoPrivacy)


@pytest.mark.parametrize("mechanism", [LAPLACE, GAUSSIAN], ids=["laplace", "gaussian"])
def test_the_statement_says_what_is_not_covered(mechanism):
    account = protected(mechanism).account
    said = account.statement(account.init())
    assert said["unit"] == "the values of one example of one client, not its label"
    assert said["adjacency"] == "replace_one"
    assert said["not_covered"][0] == "labels, which are trained on as they are"


@pytest.mark.parametrize(
    ("mechanism", "deviation"),
    [(LAPLACE, 2.0 * math.sqrt(2)), (GAUSSIAN, 2.0)],
    ids=["laplace", "gaussian"],
)
def test_noise_of_the_size_that_is_said_on_every_value_and_no_label(mechanism, deviation):
    given = split(torch.full((200, 1, 4, 4), 0.25))
    noised = mechanism.perturbed(given, np.random.default_rng(0))
    noise = (noised.x - given.x).double()
    assert float(noise.std()) == pytest.approx(deviation, rel=0.1)
    assert abs(float(noise.mean())) < 4 * deviation / math.sqrt(noise.numel())
    assert torch.equal(noised.y, given.y)
    assert float(given.x.max()) == 0.25


def test_values_are_cut_to_the_range_and_the_norm_that_the_account_counts_on():
    given = split([[-5.0, 0.5, 40.0], [0.0, 0.25, 0.5]])
    cut = replace(GAUSSIAN, noise_std=TINY).perturbed(given, np.random.default_rng(0)).x
    torch.testing.assert_close(cut, torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.25, 0.5]]))
    short = replace(LAPLACE, noise_scale=TINY, clip_norm_l1=0.75)
    cut = short.perturbed(given, np.random.default_rng(0)).x
    torch.testing.assert_close(cut, torch.tensor([[0.0, 0.25, 0.5], [0.0, 0.25, 0.5]]))
    ranges = replace(LAPLACE, noise_scale=TINY, value_range=[[-10, 0], [0, 1], [0, 20]])
    cut = ranges.perturbed(given, np.random.default_rng(0)).x
    torch.testing.assert_close(cut, torch.tensor([[-5.0, 0.5, 20.0], [0.0, 0.25, 0.5]]))


def test_noise_is_in_units_of_each_range():
    wide = replace(GAUSSIAN, noise_std=0.1, value_range=[[0, 1], [0, 1000]])
    noised = wide.perturbed(split(torch.zeros(500, 2)), np.random.default_rng(0)).x
    assert noised[:, 0].std() == pytest.approx(0.1, rel=0.2)
    assert noised[:, 1].std() == pytest.approx(100, rel=0.2)


def test_each_client_has_a_stream_of_its_own_and_liars_keep_what_they_made_up():
    train = split(torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    shards = (np.array([0, 3]), np.array([1, 2]), np.array([4, 5]))
    honest = np.array([False, False, False])
    noised = examples_trained_on(LAPLACE, train, shards, honest, 0)
    again = examples_trained_on(LAPLACE, train, shards, np.array([False, True, False]), 0)
    assert torch.equal(again.x[[0, 3, 4, 5]], noised.x[[0, 3, 4, 5]])
    assert torch.equal(again.x[[1, 2]], train.x[[1, 2]])
    assert not torch.equal(examples_trained_on(LAPLACE, train, shards, honest, 1).x, noised.x)
    noise = noised.x - train.x
    assert not torch.equal(noise[[0, 3]], noise[[1, 2]])
    assert examples_trained_on(NoPrivacy(), train, shards, honest, 0) is train


def test_clients_train_on_noise_and_studies_see_the_truth():
    asked = ("partition=iid", "backend=in_process")
    noised = build(config_for(*asked, "privacy=input_gaussian"))
    plain = build(config_for(*asked))
    assert torch.equal(noised.dataset.as_floats().train.x, plain.dataset.as_floats().train.x)
    seen = noised.experiment.backend._workload.train.x
    assert not torch.equal(seen, plain.dataset.as_floats().train.x)
    assert float((seen - plain.dataset.as_floats().train.x).std()) == pytest.approx(1, rel=0.05)


def test_an_attack_that_ends_leaves_its_clients_with_their_own_examples_noised_as_ever():
    asked = ("partition=iid", "backend=in_process", "privacy=input_gaussian", "rounds=3")
    ends = ("attack=label_flip", "attack.n_malicious=2", "attack.last_round=0")
    peace, attacked = build(config_for(*asked)), build(config_for(*asked, *ends))
    honest, workload = (b.experiment.backend._workload for b in (peace, attacked))
    true = peace.dataset.as_floats().train
    unpoisoned = attacked.experiment.unpoisoned
    assert set(unpoisoned) == set(np.flatnonzero(attacked.experiment.malicious))
    for client, place in unpoisoned.items():
        held = torch.from_numpy(honest.shards[client])
        while_it_attacks = workload.train.rows(torch.from_numpy(workload.shards[client]))
        assert torch.equal(while_it_attacks.x, true.x[held])  # made up to do harm: no noise
        assert torch.equal(while_it_attacks.y, 9 - true.y[held])
        afterwards = workload.train.rows(torch.from_numpy(workload.shards[place]))
        assert torch.equal(afterwards.x, honest.train.x[held])
        assert torch.equal(afterwards.y, true.y[held])
        assert not torch.equal(afterwards.x, true.x[held])


REFUSED = {
    "a claim on labels": ("+privacy.protect_labels=true", "labels are trained on as they are"),
    "a limit a round": ("+privacy.max_epsilon=5", "is spent once, before the first round"),
    "the other norm": ("+privacy.clip_norm=5", "Laplace noise needs an L1 clip"),
    "a range upside down": ("privacy.value_range=[1,0]", "must be [low, high] with low below high"),
    "no range": ("privacy.value_range=[0,inf]", "must be [low, high] with low below high"),
    "pairs for other features": (
        "privacy.value_range=[[0,1],[0,1]]",
        "has 2 pairs, and an example is [1, 8, 8]",
    ),
    "no noise": ("privacy.target_epsilon=.inf", "asks for no noise"),
    "noise twice": (["privacy.target_epsilon=5", "privacy.noise_scale=1"], "given twice"),
    "a wrong size": ("privacy.noise_scale=-1", "must be a finite number above 0"),
}


@pytest.mark.parametrize(("override", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(override, words):
    overrides = [override] if isinstance(override, str) else override
    assert words in refusal(config_for("privacy=input_laplace", *overrides))


def test_delta_above_one_over_the_examples_is_refused():
    with pytest.raises(InputError, match="must be below 1/1000"):
        protected(replace(GAUSSIAN, delta=0.01))


@pytest.mark.parametrize("choice", ["input_laplace", "input_gaussian"])
def test_the_choices_are_these(choice):
    assert isinstance(part("privacy", choice), (InputLaplace, InputGaussian))
