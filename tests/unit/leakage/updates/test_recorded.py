"""Updates that a run kept are attacked as they are, from the model that their round began with."""

from dataclasses import replace

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.leakage.updates.recorded import RecordedUpdates
from tests.support.studied_runs import victim_of_run
from tests.unit.leakage.updates.test_exposure import gradient

ALL = RecordedUpdates(rounds=["first"], examples=50, largest_client=3, labels_shared=False)
ONE_EXAMPLE_EACH = (
    "model=logistic",
    "train_examples=6",
    "n_clients=6",
    "training.batch_size=null",
    "training.epochs=null",
    "training.steps=1",
)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    return victim_of_run(folder, *ONE_EXAMPLE_EACH, "record_updates=safetensors")


@pytest.mark.parametrize(("round", "model"), [("first", 0), ("last", 1)])
def test_the_rows_are_the_clients_gradients_at_the_model_they_were_sent(victim, round, model):
    observed = replace(ALL, rounds=[round])(victim)
    assert len(observed) == 6
    for exposed in observed:
        expected = -victim.config["training"]["lr"] * gradient(
            victim, victim.models[model], exposed.truth
        )
        torch.testing.assert_close(exposed.observation.update, expected, rtol=1e-4, atol=1e-6)
        assert exposed.observation.knowledge.params is victim.models[model]
        assert exposed.observation.knowledge.local_steps == 1


def test_updates_of_minibatches_are_not_read_as_full_batches(tmp_path):
    small = [o for o in ONE_EXAMPLE_EACH if "n_clients" not in o and "batch_size" not in o]
    more = ("n_clients=3", "partition=iid", "training.batch_size=1", "record_updates=safetensors")
    with pytest.raises(InputError, match="batch_size=1: 3 updates are of steps on a part"):
        ALL(victim_of_run(tmp_path, *small, *more))


def test_no_more_examples_are_taken_than_asked_for(victim):
    assert len(replace(ALL, examples=4)(victim)) == 4


def test_a_round_whose_model_is_not_there_is_refused(victim):
    with pytest.raises(InputError, match="known for rounds 1, 2"):
        replace(ALL, rounds=[3])(victim)


def test_large_clients_are_left_alone(tmp_path):
    victim = victim_of_run(tmp_path, "model=logistic", "record_updates=safetensors")
    with pytest.raises(InputError, match="the smallest client holds 125 examples"):
        ALL(victim)


def test_a_run_that_kept_nothing_is_refused(tmp_path):
    victim = victim_of_run(tmp_path, *ONE_EXAMPLE_EACH)
    with pytest.raises(InputError, match="record_updates=true"):
        ALL(victim)


def test_recorded_sums_are_refused(tmp_path):
    victim = victim_of_run(
        tmp_path, *ONE_EXAMPLE_EACH, "channel=secure_aggregation", "record_updates=safetensors"
    )
    with pytest.raises(InputError, match="recorded sums over clients"):
        ALL(victim)


def in_minibatches(folder, *more):
    """Three clients of two examples, an example a step."""
    small = [o for o in ONE_EXAMPLE_EACH if "n_clients" not in o and "batch_size" not in o]
    given = ("n_clients=3", "partition=iid", "training.batch_size=1", "record_updates=safetensors")
    return victim_of_run(folder, *small, *given, *more)


def test_updates_of_whole_epochs_of_minibatches_are_taken_where_asked_for(tmp_path):
    victim = in_minibatches(tmp_path, "training.steps=4")
    taken = replace(ALL, minibatches=True)(victim)
    assert len(taken) == 3
    for exposed in taken:
        told = exposed.observation.knowledge
        assert (told.minibatch, told.local_steps, told.batch_size) == (1, 4, 2)
        lr = victim.config["training"]["lr"]
        ends = []
        for order in ([0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]):
            params = victim.models[0].clone()
            for row in order:
                params -= lr * gradient(victim, params, exposed.truth.rows(torch.tensor([row])))
            ends.append(float((params - victim.models[0] - exposed.observation.update).norm()))
        assert min(ends) < 1e-5


@pytest.mark.parametrize(
    "more",
    [
        ("training.steps=3",),
        ("training.steps=4", "privacy=dp_sgd", "privacy.noise_multiplier=1", "privacy.delta=1e-3"),
    ],
    ids=["one and a half epochs", "DP-SGD"],
)
def test_steps_that_are_no_whole_epochs_are_refused_even_then(tmp_path, more):
    with pytest.raises(InputError, match="3 updates are of steps on a part"):
        replace(ALL, minibatches=True)(in_minibatches(tmp_path, *more))
