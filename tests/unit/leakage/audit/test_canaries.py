"""Canaries: what is in a run that has them, and what its scores are made of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.rng import generator
from fedexp.core.types import ClientTask, Updates
from fedexp.federation.rounds import initial_state, run_round, run_rounds
from fedexp.federation.sampling import Full, Poisson
from fedexp.leakage.audit.clients import (
    CanaryClients,
    Directions,
    WithCanaryClients,
    Without,
)
from fedexp.leakage.audit.examples import (
    RIDGE,
    CanaryExamples,
    ClippedGradients,
    coefficients,
    example_canaries,
)
from fedexp.leakage.audit.gradients import Steps, gradient_canaries
from fedexp.leakage.audit.sight import log_ratio, spent_as_planned
from fedexp.tasks.multiclass import Multiclass
from tests.support.audited_victims import CENTRAL, EXAMPLES, LAPLACE, LOCAL, audited

RNG = generator(0, "test_canaries")
NO_NOISE = 1e-9


def coins(m, seed=0):
    return generator(seed, "test_canaries").random(m) < 0.5


def examples(victim, inside, noise_scale=1.0, strength=10.0, others=256):
    rng = generator(1, "test_canaries")
    private = victim.experiment.trainer
    return example_canaries(victim, private, inside, strength, others, noise_scale, rng)


def clients(victim, inside, noise_scale=1.0):
    mechanism = victim.experiment.server.privacy
    rng = generator(1, "test_canaries")
    added = CanaryClients.settled(victim, mechanism, len(inside), rng)
    return added.run(victim.experiment.seed, inside, noise_scale)


def rounds_of(with_canaries, start):
    before = initial_state(with_canaries.experiment, start)
    for state, record in run_rounds(with_canaries.experiment, before):
        yield before, state, record
        before = state


IGNORED = Multiclass.ignored


# Examples.


def test_a_canary_that_is_out_keeps_its_place_with_an_ignored_label():
    x, y = torch.arange(4.0).view(4, 1, 1, 1), torch.tensor([3, 1, 4, 1])
    canaries = CanaryExamples(
        Split(x, y), np.array([0, 1, 0, 1]), np.array([True, True, False, False]), IGNORED
    )
    assert canaries.of(0).y.tolist() == [3, IGNORED]
    assert canaries.of(1).y.tolist() == [1, IGNORED]
    assert canaries.of(1).x.flatten().tolist() == [1.0, 3.0]
    assert len(canaries.of(2)) == 0


def test_what_a_canary_looks_like_changes_nothing_while_it_is_out():
    # Its gradient is zero to the last bit, so that the rows of two runs are the same ones.
    victim = audited(*EXAMPLES, "rounds=1")
    rows = [
        next(rounds_of(examples(victim, np.zeros(20, bool), strength=s), victim.models[0]))[
            2
        ].received.matrix.clone()
        for s in (1.0, 50.0)
    ]
    assert torch.equal(*rows)
    there = examples(victim, np.ones(20, bool), strength=50.0)
    assert not torch.equal(next(rounds_of(there, victim.models[0]))[2].received.matrix, rows[0])


def test_public_numbers_do_not_depend_on_the_coins():
    victim = audited(*EXAMPLES)
    accounts, sizes = [], []
    for inside in (np.zeros(20, bool), np.ones(20, bool)):
        with_canaries = examples(victim, inside)
        _, state, record = next(rounds_of(with_canaries, victim.models[0]))
        accounts.append(with_canaries.experiment.account.epsilon(state.ledger))
        sizes.append(record.received.num_examples.tolist())
    assert accounts[0] == accounts[1]
    assert sizes[0] == sizes[1] == [len(s) + 4 for s in victim.partition.shards]


def test_clipped_gradients_against_one_backward_pass_each():
    victim = audited(*EXAMPLES)
    data = victim.normalisation(victim.pixels.train.rows(torch.arange(5)))
    found = ClippedGradients(victim.model, Multiclass(), 0.7)(victim.models[0], data)
    for row, x, y in zip(found, data.x, data.y, strict=True):
        loss = F.cross_entropy(victim.model(x[None]), y[None])
        flat = torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, victim.model.parameters())]
        )
        expected = flat * min(1.0, 0.7 / float(flat.norm()))
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)


def test_coefficients_solve_the_ridge_regression():
    g = torch.from_numpy(generator(2, "test_canaries").normal(size=(7, 40)))
    row = torch.from_numpy(generator(3, "test_canaries").normal(size=40))
    found = coefficients(row, g[:4], g[4:], clip_norm=2.0)
    # The same problem as ordinary least squares on stacked rows, in units of the clip norm.
    stacked = torch.cat([g.T / 2.0, RIDGE**0.5 * torch.eye(7).double()])
    expected = torch.linalg.lstsq(stacked, torch.cat([row, torch.zeros(7).double()])).solution
    torch.testing.assert_close(found, expected[:4], rtol=1e-6, atol=1e-9)


def test_without_noise_the_scores_tell_who_was_in():
    victim = audited(*EXAMPLES, "training.batch_size=null", "rounds=3")
    inside = coins(40)
    with_canaries = examples(victim, inside, NO_NOISE)
    scores = sum(
        with_canaries.score(*seen) for seen in rounds_of(with_canaries, victim.models[0])
    ).numpy()
    assert scores[inside].min() > scores[~inside].max()


def test_malicious_clients_are_given_no_canaries():
    victim = audited(*EXAMPLES, "attack=sign_flip", "attack.n_malicious=2", "rounds=1")
    owners = examples(victim, coins(30)).experiment.trainer.canaries.owners
    assert sorted(set(owners)) == np.flatnonzero(~victim.experiment.malicious).tolist()


# Gradients.


def gradients(victim, inside, noise_scale=1.0):
    private, rng = victim.experiment.trainer, generator(1, "test_canaries")
    return gradient_canaries(victim, private, inside, noise_scale, rng)


FULL = ("training.batch_size=null", "training.lr=0.1", "privacy.clip_norm=0.5", "rounds=1")


def test_a_canary_gradient_moves_the_row_as_a_clipped_example_would():
    victim = audited(*EXAMPLES, *FULL)
    for inside in (np.zeros(10, bool), np.array([True, False] * 5)):
        run = gradients(victim, inside, NO_NOISE)
        _, _, record = next(rounds_of(run, victim.models[0]))
        held, received = run.experiment.trainer.held, record.received
        for client, row in zip(received.client_ids, received.matrix, strict=True):
            mine = np.flatnonzero(held.owners == client)
            n = len(victim.partition.shards[client])  # the only step, at a rate of 1
            expected = torch.where(torch.from_numpy(inside[mine]), -0.1 * 0.5 / n, 0.0).double()
            places = torch.from_numpy(held.places[mine])
            torch.testing.assert_close(
                held.directions.along(row)[places], expected, rtol=1e-3, atol=1e-9
            )
            # The client's own examples are left out.
            others = torch.tensor(float(np.sqrt(inside[mine].sum())) * 0.05 / n)
            torch.testing.assert_close(row.norm(), others, rtol=1e-3, atol=1e-9)


def test_canary_gradients_are_scored_by_the_likelihood_of_what_is_seen():
    held = gradients(audited(*EXAMPLES), np.zeros(10, bool)).experiment.trainer.held
    assert sorted(set(held.places)) == [0, 1]  # 10 among 5 clients
    seen = torch.from_numpy(RNG.normal(size=held.directions.coordinates.numel() + 3)).float()
    task, n, q, z = ClientTask(2, seen, 0, 7), 50, 0.2, held.noise_multiplier
    steps = Steps(held, task, n, q)
    again = steps.with_canaries([seen[:40].view(8, 5), seen[40:]])
    assert torch.equal(torch.cat([g.flatten() for g in again]), seen)  # nobody is in
    x = (held.directions.along(seen) * n * q / held.clip_norm).numpy()
    expected = np.log(1 - q + q * np.exp((x - 0.5) / z**2))
    *scores, squares, looks = steps.reported().values()
    assert list(steps.reported())[:2] == ["canary 0", "canary 1"]
    assert scores == pytest.approx(expected.tolist(), rel=1e-5)
    assert (squares, looks) == (pytest.approx(((x / z) ** 2).sum(), rel=1e-5), 2)


def test_a_client_without_canaries_reports_zeros():
    victim = audited(*EXAMPLES, "rounds=1")
    run = gradients(victim, np.ones(3, bool))
    _, _, record = next(rounds_of(run, victim.models[0]))
    said = [metrics["canary 0"] for metrics in record.received.metrics]
    assert [value != 0 for value in said] == [True, True, True, False, False]


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_made_up_scores_are_like_real_ones(share):
    victim = audited(*EXAMPLES, "rounds=2")
    inside = coins(1000)
    run = gradients(victim, inside, share)
    real = sum(run.score(*seen) for seen in rounds_of(run, victim.models[0])).numpy()
    made_up = run.sight(inside, share, generator(2, "test_canaries"))
    for there in (inside, ~inside):
        one, other = real[there], made_up[there]
        deviation = other.std() / np.sqrt(there.sum() / 2)
        assert abs(one.mean() - other.mean()) < 4 * deviation
        assert one.std() == pytest.approx(other.std(), rel=0.2)


def test_canary_gradients_change_no_public_number():
    victim = audited(*EXAMPLES, "rounds=1")
    run = gradients(victim, coins(20))
    _, state, record = next(rounds_of(run, victim.models[0]))
    spent = spent_as_planned(victim.experiment)
    assert run.experiment.account.epsilon(state.ledger) == victim.experiment.account.epsilon(spent)
    sizes = [len(shard) for shard in victim.partition.shards]
    assert record.received.num_examples.tolist() == sizes


def test_log_ratio_is_a_line_at_a_rate_of_one():
    assert log_ratio(np.array([-900.0, 2.0]), 1.0, 1.0).tolist() == [-900.5, 1.5]
    assert log_ratio(np.array([900.0]), 0.1, 1.0) == pytest.approx(899.5 + np.log(0.1))


# Clients.


@pytest.mark.parametrize("spread", [True, False])
def test_directions_are_orthonormal(spread):
    directions = Directions.drawn(10, 57, spread, generator(0, "test_canaries"))
    rows = directions.rows(torch.arange(10), torch.ones(10), 57)
    torch.testing.assert_close(rows @ rows.T, torch.eye(10))
    assert (rows != 0).sum(dim=1).tolist() == [5 if spread else 1] * 10
    vector = torch.from_numpy(RNG.normal(size=57)).float()
    torch.testing.assert_close(directions.along(vector), (rows @ vector).double())


def test_there_is_no_room_for_more_canaries_than_dimensions():
    with pytest.raises(InputError, match=r"canaries=11: no more than the 10 numbers"):
        Directions.drawn(11, 10, True, RNG)


def test_a_sampler_without_the_absent_draws_the_others_alike():
    sampler = Without(Full(6), np.array([1, 4]))
    assert sampler(6, RNG).tolist() == [0, 2, 3, 5]
    whole = Poisson(3)(9, generator(4, "test_canaries"))
    rest = Without(Poisson(3), whole[:1])(9, generator(4, "test_canaries"))
    assert rest.tolist() == whole[1:].tolist()


class Zeros:
    """A backend that trains nothing, and notes whom it was asked for."""

    def __init__(self):
        self.asked = []

    def train(self, trainer, tasks):
        self.asked = [task.client_id for task in tasks]
        n = len(tasks)
        ones = torch.ones(n, dtype=torch.float64)
        return Updates(torch.zeros(n, 8), tuple(self.asked), ones, 0, ({"loss": 1.0},) * n)


@pytest.mark.parametrize("cohort", [[0, 2, 3, 5], [3], [1], []])
def test_canaries_answer_for_themselves_behind_the_others(cohort):
    inner = Zeros()
    directions = Directions.drawn(4, 8, True, generator(0, "test_canaries"))
    backend = WithCanaryClients(inner, 3, directions, torch.tensor([5.0, 0.0, -5.0, 5.0]))
    tasks = [ClientTask(c, torch.zeros(8), 0, 0) for c in cohort]
    updates = backend.train(None, tasks)
    assert inner.asked == [c for c in cohort if c < 3]
    assert updates.client_ids == tuple(cohort)
    expected = {3: 5.0, 4: 0.0, 5: 5.0, 6: 5.0}
    assert updates.matrix.norm(dim=1).tolist() == pytest.approx(
        [expected.get(c, 0) for c in cohort]
    )
    assert len(updates.metrics) == len(updates.num_examples) == len(cohort)


@pytest.mark.parametrize("overrides", [CENTRAL, (*CENTRAL, "worker_momentum=momentum")])
def test_a_canary_moves_the_model_by_the_clip_norm_and_an_absent_one_not_at_all(overrides):
    victim = audited(*overrides, "privacy.clip_norm=0.3", "rounds=2")
    inside = coins(50)
    with_canaries = clients(victim, inside, NO_NOISE)
    divisor = with_canaries.experiment.server.privacy.expected_cohort
    assert divisor == 60  # 10 clients and 50 canaries
    blind = clients(victim, np.zeros(50, bool), NO_NOISE)
    pairs = zip(*(rounds_of(r, victim.models[0]) for r in (with_canaries, blind)), strict=True)
    seen, without = next(pairs)
    # The run's own clients move along the directions a little too: by as much without canaries.
    difference = with_canaries.score(*seen) - blind.score(*without)
    expected = torch.from_numpy(np.where(inside, 0.3 / divisor, 0.0))
    torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-7)
    assert seen[2].received.client_ids == (*range(10), *(10 + np.flatnonzero(inside)).tolist())


@pytest.mark.parametrize(
    ("overrides", "clip_norm", "out"),
    [
        (LOCAL, 1.0, -1.0),
        ((*LOCAL, "privacy.adjacency=add_remove"), 1.0, 0.0),
        (LAPLACE, 1.0, -1.0),
        ((*LAPLACE, "privacy.clip_norm_l1=4.0", "privacy.adjacency=add_remove"), 4.0, 0.0),
    ],
)
def test_rows_of_local_canaries_are_as_far_apart_as_the_adjacency_says(overrides, clip_norm, out):
    victim = audited(*overrides, "rounds=1")
    inside = coins(50)
    with_canaries = clients(victim, inside, NO_NOISE)
    scores = with_canaries.score(*next(rounds_of(with_canaries, victim.models[0])))
    expected = torch.from_numpy(np.where(inside, clip_norm, out * clip_norm))
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


def test_cohorts_of_a_fixed_size_replace_a_canary_by_its_opposite():
    cohorts = ("sampler=uniform", "cohort_size=5", "privacy.sampling=fixed_size")
    victim = audited(*CENTRAL[:2], *cohorts, "rounds=1")
    inside = coins(40)
    with_canaries = clients(victim, inside, NO_NOISE)
    _, _, record = seen = next(rounds_of(with_canaries, victim.models[0]))
    assert len(record.received) == 25  # half of 50, whatever the coins
    turn = np.isin(10 + np.arange(40), record.received.client_ids)
    scores = (
        with_canaries.score(*seen).numpy() * with_canaries.experiment.server.privacy.expected_cohort
    )
    assert scores[turn] == pytest.approx(np.where(inside, 1.0, -1.0)[turn], abs=0.5)
    assert np.abs(scores[~turn]).max() < 0.5


def test_turns_are_looked_at_only_where_no_amplification_is_counted_on():
    for sampler, blind in (("sampler=poisson", False), ("sampler=uniform", True)):
        sampling = "privacy.sampling=none" if blind else "privacy.sampling=poisson"
        victim = audited(*CENTRAL[:2], sampler, "cohort_size=5", sampling, "rounds=1")
        with_canaries = clients(victim, coins(40))
        before, after, record = next(rounds_of(with_canaries, victim.models[0]))
        assert (with_canaries.score(before, after, record) == 0).any() == blind


@pytest.mark.parametrize("overrides", [EXAMPLES, CENTRAL, LOCAL])
def test_scores_know_nothing_of_the_coins(overrides):
    victim = audited(*overrides, "rounds=1")
    inside = coins(30)
    make = examples if overrides is EXAMPLES else clients
    one, other = make(victim, inside), make(victim, ~inside)
    seen = next(rounds_of(one, victim.models[0]))
    assert torch.equal(one.score(*seen), other.score(*seen))


@pytest.mark.parametrize("overrides", [CENTRAL, LOCAL, LAPLACE])
def test_a_scale_multiplies_the_noise_and_nothing_else(overrides):
    mechanism = audited(*overrides).experiment.server.privacy
    once, twice = mechanism.with_noise(1.0), mechanism.with_noise(0.25)
    d, state = 4000, mechanism.init(4000)
    zeros = Updates(torch.zeros(1, d), (0,), torch.ones(1, dtype=torch.float64))

    def spread(m):
        sent = m.on_client(zeros, state, generator(5, "test_canaries"))
        step, _ = m.on_step(sent.matrix[0], sent, state, generator(6, "test_canaries"))
        return float(step.std())

    assert spread(once) == pytest.approx(spread(mechanism), rel=1e-5)
    assert spread(twice) == pytest.approx(0.25 * spread(mechanism), rel=1e-4)


def test_a_rule_with_data_of_its_own_cannot_be_given_clients():
    victim = audited(*LOCAL, "aggregator=fltrust")
    with pytest.raises(InputError, match=r"^aggregator=.*data of the server's own"):
        clients(victim, coins(10))


def test_a_sampler_that_is_not_known_cannot_be_given_clients():
    victim = audited(*LOCAL)
    strange = replace(victim.experiment, sampler=lambda n, rng: np.arange(n))
    with pytest.raises(InputError, match=r"^sampler=builtins.function"):
        clients(replace(victim, experiment=strange), coins(10))


def test_a_claim_that_so_many_members_cannot_be_made_is_refused():
    victim = audited(*CENTRAL, "privacy.delta=0.05")
    with pytest.raises(InputError, match=r"^canaries=30: .*below 1/40"):
        clients(victim, coins(30))


@pytest.mark.parametrize("overrides", [EXAMPLES, CENTRAL, LOCAL])
def test_what_hides_nothing_claims_nothing(overrides):
    noise = "privacy.noise_multiplier=0"
    victim = audited(*overrides, noise, "privacy.allow_no_noise=true")
    make = examples if overrides is EXAMPLES else clients
    with pytest.raises(InputError, match=r"^privacy=.*claims no finite epsilon"):
        make(victim, coins(10))


def test_the_run_itself_is_left_as_it_was():
    victim = audited(*CENTRAL, "rounds=1")
    start = initial_state(victim.experiment, victim.models[0])
    before = run_round(victim.experiment, start)[0].params
    list(rounds_of(clients(victim, coins(20)), victim.models[0]))
    assert torch.equal(run_round(victim.experiment, start)[0].params, before)
