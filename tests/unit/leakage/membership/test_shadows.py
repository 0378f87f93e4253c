"""Shadows are runs like the run itself, on known halves, trained once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core import parallel
from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.core.rng import seed_for
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.leakage.membership import shadows
from fedexp.leakage.membership.pool import Pool
from fedexp.leakage.membership.shadows import halves, refuse_number, shadows_of
from fedexp.store.entries import Store
from fedexp.store.use import using
from tests.support.membership_victims import digits, victim_of

QUICK = ("n_clients=3", "rounds=2", "training.epochs=1", "model.hidden=[8]")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(parallel, "available_cores", lambda: 1)


@pytest.fixture
def victim(tmp_path):
    return victim_of(tmp_path / "run", *digits(50, 50), *QUICK)


def trained(victim, number, examples=None):
    """The shadows, and how often `done` was called."""
    calls = []
    pool = Pool.of(victim).examples if examples is None else examples
    found = shadows_of(victim, pool, number, lambda: calls.append(1))
    return found, len(calls)


def vectors(found):
    return torch.stack([shadow.params for shadow in found])


@pytest.fixture
def trainings(monkeypatch):
    """The shadows that are trained from now on, by number."""
    numbers, train = [], shadows._train

    def spy(job):
        numbers.append(int(job.path.stem.removeprefix("shadow-")))
        return train(job)

    monkeypatch.setattr(shadows, "_train", spy)
    return numbers


@pytest.mark.parametrize("n", [10, 11])
def test_every_example_is_in_exactly_half_of_the_models(n):
    inside = halves(0, 8, n)
    assert inside.sum(axis=0).tolist() == [4] * n
    assert inside[::2].sum(axis=1).tolist() == [n // 2] * 4
    assert (inside[::2] ^ inside[1::2]).all()  # so it is without a pair, too
    np.testing.assert_array_equal(halves(0, 4, n), inside[:4])
    assert not np.array_equal(halves(1, 8, n), inside)
    assert len({row.tobytes() for row in inside}) == 8


def test_a_shadow_is_the_run_on_its_half_with_a_seed_of_its_own(victim):
    pool = Pool.of(victim)
    found, _ = trained(victim, 4)
    half = torch.from_numpy(np.flatnonzero(found[2].inside))
    content = shadows._digest(pool.examples.x.numpy().tobytes(), pool.examples.y.numpy().tobytes())
    config = {**victim.config, "seed": seed_for(shadows._seed_of(content), "shadow", 2)}
    built = build(config, pixels=replace(victim.pixels, train=pool.examples.rows(half)))
    start = initial_state(built.experiment, vector_of(built.model))
    *_, (end, _) = run_rounds(built.experiment, start)
    assert torch.equal(found[2].params, end.params)
    assert len(half) == 50
    assert len(torch.unique(vectors(found), dim=0)) == 4


def test_a_second_attack_trains_nothing_and_a_larger_one_only_the_rest(victim, trainings):
    first, calls = trained(victim, 4)
    assert (trainings, calls) == ([0, 1, 2, 3], 4)
    again, calls = trained(victim, 4)
    assert (len(trainings), calls) == (4, 4)
    assert torch.equal(vectors(again), vectors(first))
    np.testing.assert_array_equal(again[3].inside, first[3].inside)
    more, _ = trained(victim, 6)
    assert trainings[4:] == [4, 5]
    assert torch.equal(vectors(more)[:4], vectors(first))
    kept = sorted(path.name for path in (victim.folder / "leakage" / "shadows").iterdir())
    assert kept == [f"shadow-{index:03d}.safetensors" for index in range(6)]


def test_an_interrupted_training_goes_on(victim, monkeypatch):
    expected, _ = trained(replace(victim, folder=victim.folder / "other"), 4)
    train = shadows._train

    def interrupted(job):
        if job.path.stem == "shadow-002":
            raise KeyboardInterrupt
        return train(job)

    monkeypatch.setattr(shadows, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(victim, 4)
    done = []
    monkeypatch.setattr(shadows, "_train", lambda job: done.append(job.path.stem) or train(job))
    found, calls = trained(victim, 4)
    assert (done, calls) == (["shadow-002", "shadow-003"], 4)
    assert torch.equal(vectors(found), vectors(expected))


def other_settings(victim):
    return replace(victim, config={**victim.config, "rounds": 1}), None


def other_data(victim):
    pool = Pool.of(victim).examples
    return victim, replace(pool, x=pool.x.flip(3))


def cut_short(victim):
    for path in (victim.folder / "leakage" / "shadows").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    return victim, None


@pytest.mark.parametrize("change", [other_settings, other_data, cut_short])
def test_what_does_not_belong_to_the_attack_is_trained_anew(victim, trainings, change):
    trained(victim, 4)
    changed, examples = change(victim)
    trained(changed, 4, examples)
    assert trainings == [0, 1, 2, 3] * 2
    trained(changed, 4, examples)
    assert len(trainings) == 8


def test_what_changes_no_bit_trains_nothing(victim, trainings):
    trained(victim, 4)
    config = {**victim.config, "quiet": True, "plots": False, "leakage": {"lira": {}}}
    config["paths"] = {"data_dir": "elsewhere"}
    trained(replace(victim, config=config), 4)
    trained(replace(victim, seed=7, config={**victim.config, "seed": 7}), 4)  # nor another run
    assert len(trainings) == 4


@pytest.mark.parametrize(
    "settings",
    [
        ("attack=sign_flip", "aggregator=median", "server_optimizer=adam"),
        (
            "setting=centralised",
            "privacy=dp_sgd",
            "privacy.noise_seed=os",
            "privacy.accountant=rdp",
        ),
        ("channel=secure_aggregation",),
    ],
    ids=["adversary", "noise of the system", "secure aggregation"],
)
def test_whole_federations_of_any_kind_repeat(tmp_path, settings):
    pixels, reserve = digits(50, 50)
    run = victim_of(tmp_path, pixels, reserve, *QUICK, "rounds=1", *settings)
    first, _ = trained(replace(run, folder=tmp_path / "a"), 2)
    second, _ = trained(replace(run, folder=tmp_path / "b"), 2)
    assert torch.equal(vectors(first), vectors(second))
    assert not torch.equal(first[0].params, run.models[1])


def test_half_of_the_pool_has_to_be_enough_for_the_clients(tmp_path):
    pixels, reserve = digits(50, 10)
    run = victim_of(tmp_path, pixels, reserve, *QUICK, "n_clients=40", "rounds=1")
    with pytest.raises(InputError, match="n_clients=40"):
        trained(run, 4)


@pytest.mark.parametrize("number", [0, 2, 5, -4, 4.0, True])
def test_numbers_of_shadows_that_give_no_deviation(number):
    with pytest.raises(InputError, match="must be an even number, 4 or above"):
        refuse_number(number)


@pytest.mark.slow
def test_the_bits_do_not_depend_on_the_number_of_processes(victim, monkeypatch):
    alone, _ = trained(replace(victim, folder=victim.folder / "one"), 6)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    monkeypatch.setattr(parallel, "WORTH_A_POOL", 0.0)
    together, calls = trained(replace(victim, folder=victim.folder / "two"), 6)
    assert calls == 6
    assert torch.equal(vectors(together), vectors(alone))


def test_runs_of_the_same_settings_share_them_through_a_store(tmp_path, victim, trainings):
    store = Store(tmp_path / "store")
    elsewhere = replace(victim, folder=tmp_path / "another sweep" / "job")
    with using(store):
        first, _ = trained(victim, 4)
        second, told = trained(elsewhere, 4)
        other = {**victim.config, "training": {**victim.config["training"], "lr": 0.05}}
        trained(replace(elsewhere, folder=tmp_path / "other", config=other), 4)
    assert trainings == [0, 1, 2, 3] * 2  # of the second none, of other settings all
    assert told == 4
    assert torch.equal(vectors(first), vectors(second))


def test_shadows_of_a_run_that_stopped_early_have_its_rounds(victim, tmp_path):
    stopped = replace(victim, models={r: victim.models[r] for r in (0, 1)})
    short = replace(stopped, folder=tmp_path / "short")
    one, two = vectors(trained(short, 2)[0]), vectors(trained(victim, 2)[0])
    assert not torch.equal(one, two)
    assert trained(replace(stopped, folder=victim.folder), 2)[1] == 2
    torch.testing.assert_close(vectors(trained(stopped, 2)[0]), one, rtol=0, atol=0)
