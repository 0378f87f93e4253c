"""What an adversary is shown is what the run's own client, privacy and channel make of the data."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.flat import FlatModel
from fedexp.core.step_rule import StepRule
from fedexp.leakage.updates.exposure import Exposure
from tests.support.studied_runs import victim_of_run

ONE = Exposure(
    rounds=["last"],
    examples=4,
    batch_size=1,
    local_steps=1,
    clients=None,
    labels_shared=False,
    clip_norm=None,
    noise_multiplier=None,
)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return victim_of_run(tmp_path_factory.mktemp("plain"), "model=logistic", "training.lr=0.3")


@pytest.fixture(scope="module")
def behind_sums(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sums")
    return victim_of_run(folder, "model=logistic", "channel=secure_aggregation", "cohort_size=5")


def gradient(victim, params, truth):
    """The mean gradient on examples, by torch alone: `[d]`."""
    model = FlatModel(victim.model, torch.device("cpu"))
    model.load(params)
    loss = F.cross_entropy(model.module(victim.normalisation.x(truth.x)), truth.y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters)])


def test_an_update_of_one_step_is_the_gradient(victim):
    for exposed in ONE(victim):
        expected = -0.3 * gradient(victim, victim.models[2], exposed.truth)
        torch.testing.assert_close(exposed.observation.update, expected, rtol=1e-4, atol=1e-6)
        assert exposed.round == 2
        assert exposed.observation.clients == 1


def test_several_steps_on_a_batch_are_a_loop_of_gradients(victim):
    exposed = replace(ONE, batch_size=3, local_steps=4)(victim)[0]
    assert len(exposed.truth) == 3
    params = victim.models[2].clone()
    for _ in range(4):
        params -= 0.3 * gradient(victim, params, exposed.truth)
    expected = params - victim.models[2]
    torch.testing.assert_close(exposed.observation.update, expected, rtol=1e-4, atol=1e-6)


def test_every_round_and_every_attack_sees_the_same_examples_all_trained_on(victim):
    exposed = replace(ONE, rounds=["initial", 1, "last"])(victim)
    assert [e.round for e in exposed] == [0] * 4 + [1] * 4 + [2] * 4
    images = torch.cat([e.truth.x for e in exposed]).view(3, 4, -1)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    trained_on = {row.numpy().tobytes() for row in victim.pixels.train.x}
    assert {image.numpy().tobytes() for image in images[0]} <= trained_on


def test_the_knowledge_is_what_was_shared_and_no_more(victim):
    known = ONE(victim)[0].observation.knowledge
    assert known.labels is None
    assert known.clip_norm is None
    assert (known.rule, known.local_steps, known.batch_size) == (StepRule(0.3), 1, 1)
    assert torch.equal(known.params, victim.models[2])
    told = replace(ONE, labels_shared=True, batch_size=4)(victim)[0]
    assert told.observation.knowledge.labels.tolist() == sorted(told.truth.y.tolist())


def test_behind_secure_aggregation_there_is_the_mean_of_all_and_all_are_to_be_found(behind_sums):
    (exposed,) = ONE(behind_sums)
    assert exposed.observation.clients == 5
    assert exposed.observation.knowledge.batch_size == len(exposed.truth) == 5
    lr = behind_sums.config["training"]["lr"]
    expected = -lr * gradient(behind_sums, behind_sums.models[2], exposed.truth)
    # Within the quantiser's error, which is why this is not the sharper comparison of above.
    torch.testing.assert_close(exposed.observation.update, expected, rtol=0, atol=4e-6)


def test_every_sum_that_the_channel_makes_is_seen(tmp_path):
    asked = ("model=logistic", "channel=block_means", "channel.size=2", "cohort_size=6")
    seen = replace(ONE, examples=6)(victim_of_run(tmp_path, *asked))
    assert [exposed.observation.clients for exposed in seen] == [2, 2, 2]
    rows = torch.cat([exposed.truth.x for exposed in seen]).flatten(1)
    assert len(rows.unique(dim=0)) == 6


def test_where_every_sum_is_lost_there_is_nothing_to_attack(behind_sums):
    channel = replace(behind_sums.experiment.channel, drop_before_masking=1 - 1e-9)
    lost = replace(behind_sums, experiment=replace(behind_sums.experiment, channel=channel))
    with pytest.raises(InputError, match="nothing to attack"):
        ONE(lost)


def test_noise_of_a_run_without_is_clipped_first_and_has_the_size_that_was_asked_for(victim):
    still = replace(ONE, clip_norm=0.01, noise_multiplier=0.0)(victim)[0].observation
    assert still.knowledge.clip_norm == 0.01
    assert still.update.norm().item() == pytest.approx(0.3 * 0.01, rel=1e-4)
    noisy = replace(ONE, clip_norm=0.01, noise_multiplier=2.0)(victim)[0].observation
    noise = noisy.update - still.update
    assert noise.std().item() == pytest.approx(0.3 * 2.0 * 0.01, rel=0.15)  # 650 numbers


def test_a_run_with_dp_sgd_shows_its_own_clipping_and_noise(tmp_path):
    victim = victim_of_run(
        tmp_path, "model=logistic", "privacy=dp_sgd", "privacy.noise_multiplier=3"
    )
    update = ONE(victim)[0].observation.update
    lr = victim.config["training"]["lr"]
    assert update.std().item() == pytest.approx(lr * 3.0, rel=0.15)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rounds": []}, "names no round"),
        ({"rounds": [7]}, "models are there of rounds initial, last, 0, 1, 2"),
        ({"examples": 0}, "examples"),
        ({"examples": 10_000}, "the run trained on 1257"),
        ({"clients": 3}, "needs? channel=secure_aggregation"),
        ({"noise_multiplier": 1.0}, "the run has none: set it"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"batch_size": 0}, "batch_size"),
        ({"local_steps": 0}, "local_steps"),
    ],
)
def test_what_cannot_be_exposed_is_refused(victim, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        replace(ONE, **changes)(victim)


def test_updates_that_are_no_steps_of_sgd_are_refused(tmp_path):
    victim = victim_of_run(tmp_path, "model=logistic", "training=adam")
    with pytest.raises(InputError, match="only where clients train by training=sgd"):
        ONE(victim)


def test_a_model_that_mixes_the_images_of_a_batch_is_refused(victim):
    mixing = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    with pytest.raises(InputError, match=r"model=Sequential: layer 1 \(BatchNorm1d\) mixes"):
        ONE(replace(victim, model=mixing))


def test_minibatches_are_the_clients_own_and_told_by_their_size_alone(victim):
    exposed = replace(ONE, batch_size=4, local_steps=4, minibatch=2)(victim)[0]
    told = exposed.observation.knowledge
    assert (told.minibatch, told.local_steps, told.sizes_of_an_epoch()) == (2, 4, [2, 2])
    full = replace(ONE, batch_size=4, local_steps=4)(victim)[0]
    assert not torch.equal(exposed.observation.update, full.observation.update)
    # Every order of two epochs in halves, by torch alone: one of them it must have been.
    halves = [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 3], [1, 2]]]
    epochs = [half for pair in halves for half in (pair, pair[::-1])]
    ends = [
        walked(victim, exposed.truth, [*first, *second]) for first in epochs for second in epochs
    ]
    errors = [float((end - exposed.observation.update).norm()) for end in ends]
    assert min(errors) < 1e-5 < sorted(errors)[1]


def walked(victim, truth, steps):
    """The update of steps on the given rows."""
    params = victim.models[2].clone()
    for rows in steps:
        params -= 0.3 * gradient(victim, params, truth.rows(torch.tensor(rows)))
    return params - victim.models[2]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"minibatch": 4}, "minibatch"),
        ({"minibatch": 0}, "minibatch"),
        ({"minibatch": 2, "local_steps": 3}, "local_steps"),
        ({"minibatch": 2, "clip_norm": 1.0, "noise_multiplier": 0.0}, "minibatch"),
    ],
    ids=str,
)
def test_minibatches_that_are_no_whole_epochs_are_refused(victim, settings, names):
    with pytest.raises(InputError, match=names):
        replace(ONE, **{"batch_size": 4, "local_steps": 4, **settings})(victim)


def test_minibatches_behind_sums_are_refused(behind_sums):
    with pytest.raises(InputError, match="mixes the steps"):
        replace(ONE, batch_size=4, local_steps=2, minibatch=2)(behind_sums)
