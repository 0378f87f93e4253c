"""What a run plans to release, the noise that is calibrated for it, and who is bounded by what."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.aggregation.mean import Mean
from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.core.protection import Plan
from fedexp.core.types import Delivery, Updates
from fedexp.federation.rounds import initial_state, run_round, run_rounds
from fedexp.federation.sampling import Poisson, Uniform
from fedexp.privacy import accounting, calibration
from fedexp.privacy import terms as terms_module
from fedexp.privacy.account import (
    CountingLedger,
    NoAccount,
    OneReleaseAClient,
    OneReleaseARound,
    StepsOfEachClient,
)
from fedexp.privacy.accounting import Event, Guarantee
from fedexp.privacy.calibration import least_noise
from fedexp.privacy.client_level import ClientLevel
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.none import NoPrivacy
from fedexp.privacy.terms import Terms
from tests.support.composing import config_for

SMALL = ("model.hidden=[8]", "rounds=3", "backend=in_process", "dataset=digits")


def built(*overrides):
    return build(config_for(*SMALL, *overrides))


def start(parts):
    return initial_state(parts.experiment, vector_of(parts.model))


class Tap:
    """A channel that notes what goes through the one that it stands for."""

    def __init__(self, channel):
        self._channel, self.sent, self.deliveries = channel, [], []
        self.sums = channel.sums

    def transmit(self, updates, rng):
        self.sent.append(updates.with_matrix(updates.matrix.clone()))
        self.deliveries.append(self._channel.transmit(updates, rng))
        return self.deliveries[-1]


def tapped(*overrides):
    parts = built(*overrides)
    tap = Tap(parts.experiment.channel)
    parts = replace(parts, experiment=replace(parts.experiment, channel=tap))
    return parts, tap


def everybody_trains(parts):
    """The ledger's state after all planned rounds, on paper."""
    exp = parts.experiment
    account, state = exp.account, exp.account.init()
    for round in range(exp.rounds):
        cohort = exp.sampler(exp.n_clients, _stream(exp, round)).tolist()
        state = account.ledger.charge(state, account.charges.at_most(cohort))
    return state


def _stream(exp, round):
    from fedexp.core.rng import generator

    return generator(exp.seed, "cohort", round)


# Plans and prices.


@pytest.mark.parametrize("sampler", [Uniform(3), Poisson(3)])
def test_a_plan_knows_who_will_take_part(sampler):
    plan = Plan(5, 40, sampler, sizes=(7,) * 10, d=1, aggregator=Mean("uniform"))
    counts = np.zeros(10, dtype=int)
    for round in range(40):
        for client in plan.cohort(round):
            counts[client] += 1
    assert plan.participations().tolist() == counts.tolist()
    assert plan.most_participations() == counts.max()


def test_the_plan_is_what_happens():
    parts, tap = tapped("cohort_size=4", "sampler=poisson")
    list(run_rounds(parts.experiment, start(parts)))
    plan = Plan(0, 3, parts.experiment.sampler, (1,) * 10, 1, Mean("uniform"))
    assert [list(sent.client_ids) for sent in tap.sent] == [plan.cohort(r) for r in range(3)]


def delivery_of(*members):
    n = sum(len(m) for m in members)
    sent = Updates(
        torch.zeros(n + 1, 2),
        tuple(range(n + 1)),
        torch.ones(n + 1),
        metrics=tuple({"steps": 10.0 + k} for k in range(n + 1)),
    )
    return sent, Delivery(sent, members, (), (), 0, 0, {}, 0)


def test_who_pays_for_a_round():
    sent, delivery = delivery_of((0, 2), (1,))  # client 3 dropped out
    assert StepsOfEachClient((5, 6, 7, 8)).at_most([1, 3]) == {1: 6, 3: 8}
    assert StepsOfEachClient((5, 6, 7, 8)).of(sent, delivery) == {0: 10, 1: 11, 2: 12, 3: 13}
    assert OneReleaseAClient().at_most([1, 3]) == {1: 1, 3: 1}
    assert OneReleaseAClient().of(sent, delivery) == {0: 1, 1: 1, 2: 1}
    nobody, nothing = delivery_of()
    assert OneReleaseARound().at_most([]) == OneReleaseARound().of(nobody, nothing) == {0: 1}


def test_releases_that_are_alike_are_counted_and_the_largest_count_is_the_epsilon():
    ledger = CountingLedger(3, lambda count: 0.5 * count, 1e-5, "rdp", "add_remove")
    state = ledger.init()
    assert ledger.epsilon(state).epsilon == 0
    state = ledger.charge(ledger.charge(state, {0: 1, 2: 1}), {2: 1})
    assert ledger.epsilon(state).epsilon == 1.0
    assert not ledger.would_exceed(state, {0: 1}, 1.0)
    assert ledger.would_exceed(state, {2: 1}, 1.0)


# Calibration.


@pytest.mark.parametrize(
    "overrides",
    [
        ("privacy=dp_sgd", "cohort_size=4", "privacy.accountant=rdp"),
        ("privacy=dp_sgd", "setting=centralised"),
        pytest.param(
            ("privacy=client_dp", "sampler=poisson", "cohort_size=3"), marks=pytest.mark.slow
        ),
        ("privacy=client_dp", "cohort_size=3"),
        ("privacy=client_dp", "cohort_size=3", "privacy.sampling=fixed_size"),
        ("privacy=local_gaussian", "cohort_size=3"),
        ("privacy=local_laplace", "cohort_size=3"),
        ("channel=secure_skellam", "cohort_size=6"),
    ],
    ids=" ".join,
)
def test_calibrated_noise_spends_the_target_and_no_more(overrides):
    group = "channel" if "secure" in overrides[0] else "privacy"
    parts = built(*overrides, f"{group}.target_epsilon=4", "rounds=5")
    account = parts.experiment.account
    assert 3.95 < account.epsilon(everybody_trains(parts)) <= 4
    assert account.statement(account.init())["epsilon"] == 0


def test_the_least_noise_of_a_curve():
    assert 2 <= least_noise(lambda z: 1 / z, 0.5, 1e-3) <= 2 * 1.001
    assert 1 / 300 <= least_noise(lambda z: 1 / z, 300, 1e-3) <= 1.001 / 300
    with pytest.raises(InputError) as refusal:
        least_noise(lambda z: 3.0, 1, 1e-3, about=" (whatever is done)")
    assert str(refusal.value) == (
        "target_epsilon=1: out of reach: at noise_multiplier=16384 epsilon is still 3 "
        "(whatever is done)"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("privacy=dp_sgd",),
        ("privacy=client_dp",),
        ("privacy=client_dp", "sampler=poisson", "cohort_size=3"),
        ("privacy=client_dp", "cohort_size=3", "privacy.sampling=fixed_size"),
        ("privacy=client_dp", "privacy.adaptive=true"),
        ("privacy=local_gaussian",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("infinity", [".inf", "inf"])  # YAML's, Hydra's
def test_the_least_noise_for_an_infinite_target_is_none(overrides, infinity):
    parts = built(*overrides, f"privacy.target_epsilon={infinity}", "privacy.allow_no_noise=true")
    account = parts.experiment.account
    assert account.description.noise["noise_multiplier"] == 0
    assert account.statement(account.init())["epsilon"] == 0
    state = everybody_trains(parts)
    assert account.epsilon(state) == math.inf
    assert account.statement(state)["epsilon"] is None
    assert account.statement(state)["note"] == "nothing is promised: epsilon is infinite"


def test_the_place_of_noise_that_is_not_known_yet_is_held_by_none_that_a_part_refuses():
    # A count noised by 10 / 20 leaves room for z below 1 only, and a quarter is enough here.
    adaptive = ("privacy=client_dp", "privacy.adaptive=true", "privacy.target_epsilon=50")
    account = built(*adaptive).experiment.account
    assert 0.2 < account.description.noise["noise_multiplier"] < 0.3


def terms(target_epsilon, accountant="prv"):
    return Terms(1e-5, accountant, target_epsilon, None, False, "")


def says(z, history, accountant="prv"):
    return accounting.epsilon([Event(z, *history)], 1e-5, accountant).epsilon


MANY = [(1 / batches, 3 * batches + k) for batches in (4, 9, 20, 40) for k in (0, 10)]


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("target", [0.05, 3.0])  # in the first, prv says more than rdp
def test_no_history_is_said_to_exceed_the_target_and_with_less_noise_one_is(target, accountant):
    z = terms(target, accountant).least_noise(MANY)
    assert max(says(z, history, accountant) for history in MANY) <= target
    assert max(says(0.999 * z, history, accountant) for history in MANY) > target


def test_what_rdp_clears_is_not_asked_of_prv(monkeypatch):
    asked, answer = set(), accounting._prv_epsilon

    def noted(history, delta, rdp):
        asked.update(event.sample_rate for event in history)
        return answer(history, delta, rdp)

    monkeypatch.setattr(accounting, "_prv_epsilon", noted)
    accounting._guarantee.cache_clear()
    terms(3.0).least_noise(MANY)
    assert 1 / 4 in asked
    assert 1 / 40 not in asked  # a third of the epsilon of the first


def test_histories_are_looked_at_again_when_another_one_raises_the_noise(monkeypatch):
    def wavers(history, delta, accountant):
        (event,) = history
        said = (1.0 if event.sample_rate == 0.5 else 1.002) / max(event.noise_multiplier, 1e-9)
        if event.sample_rate == 0.5 and event.noise_multiplier > 2.001:
            said += 0.005  # as prv may on another grid
        return Guarantee(said, delta, accountant, "add_remove", "")

    monkeypatch.setattr(terms_module, "epsilon", wavers)
    monkeypatch.setattr(calibration, "epsilon", wavers)
    z = terms(0.5).least_noise([(0.5, 1), (0.25, 1)])
    for q in (0.5, 0.25):
        assert wavers([Event(z, q, 1)], 1e-5, "prv").epsilon <= 0.5
    assert z < 2.03


def test_a_client_that_trains_little_does_not_raise_the_noise_of_the_others():
    z = {}
    for cohort in (2, 10):
        parts = built("privacy=local_gaussian", "privacy.target_epsilon=4", f"cohort_size={cohort}")
        z[cohort] = parts.experiment.account.description.noise["noise_multiplier"]
    assert z[2] < z[10]


# Who is bounded by what.


def norms(matrix):
    return torch.linalg.vector_norm(matrix, dim=1)


def test_by_default_nothing_is_promised():
    exp = built().experiment
    assert isinstance(exp.server.privacy, NoPrivacy)
    assert isinstance(exp.account, NoAccount)
    assert exp.account.epsilon(exp.account.init()) is None


def test_dp_sgd_takes_the_place_of_the_configured_trainers_steps():
    plain, private = built("training.lr=0.3"), built("training.lr=0.3", "privacy=dp_sgd")
    trainer = private.experiment.trainer
    assert isinstance(trainer, PrivateTraining)
    assert trainer.trainer == plain.experiment.trainer
    assert isinstance(private.experiment.server.privacy, NoPrivacy)


@pytest.mark.parametrize("momentum", ["none", "momentum"])
def test_one_client_moves_the_released_sum_by_the_clip_norm_at_most(momentum):
    overrides = ("privacy=client_dp", "privacy.noise_multiplier=0", "privacy.allow_no_noise=true")
    parts, tap = tapped(
        *overrides, f"worker_momentum={momentum}", "privacy.clip_norm=0.5", "cohort_size=7"
    )
    state = start(parts)
    for _ in range(3):
        before = state.params
        state, _ = run_round(parts.experiment, state)
        rows = tap.sent[-1].matrix
        assert norms(rows).max() <= 0.5
        # Uniform weights, whoever has how many examples, and the fixed divisor.
        torch.testing.assert_close(state.params - before, rows.sum(dim=0) / 7, rtol=0, atol=1e-6)


def test_who_lies_does_not_clip_and_is_clipped_by_the_server():
    parts, tap = tapped(
        *("privacy=client_dp", "privacy.noise_multiplier=0", "privacy.allow_no_noise=true"),
        *("privacy.clip_norm=0.5", "attack=scaling", "attack.factor=100", "attack.n_malicious=1"),
    )
    state = start(parts)
    after, _ = run_round(parts.experiment, state)
    sent = norms(tap.sent[0].matrix)
    lies = torch.from_numpy(parts.experiment.malicious)
    assert sent[lies].item() > 10
    assert sent[~lies].max() <= 0.5
    assert torch.linalg.vector_norm(after.params - state.params) <= 0.5


def test_noise_in_the_rows_is_there_before_the_adversary_sees_them():
    quiet, loud = (
        tapped("privacy=local_gaussian", f"privacy.noise_multiplier={z}", "attack=mimic")
        for z in (1e-6, 1)
    )
    seen = []
    for parts, tap in (quiet, loud):
        run_round(parts.experiment, start(parts))
        seen.append(tap.sent[0].matrix)
    d = seen[0].shape[1]
    std = (seen[1] - seen[0]).std(dim=1)
    assert std.median() == pytest.approx(2.0, rel=5 / d**0.5)  # 2 C, replace-one


def test_the_server_makes_its_step_of_the_survivors_only():
    secure = ("channel=secure_aggregation", "channel.encoder.value_range=4")
    parts, tap = tapped(*secure, "channel.drop_before_masking=0.2")
    state = start(parts)
    for _ in range(3):
        before = state.params
        state, record = run_round(parts.experiment, state)
        (members,) = tap.deliveries[-1].members
        assert 6 < len(members) < 10
        rows, sent = list(members), tap.sent[-1]
        weights = sent.num_examples[rows] / sent.num_examples[rows].sum()
        mean = weights @ sent.matrix[rows].double()
        grid = 4 / (2**19 - 1)  # between two levels of 20 bits
        torch.testing.assert_close((state.params - before).double(), mean, rtol=0, atol=grid + 1e-6)
        assert record.received.client_ids == (-1,)


def test_liars_in_a_group_make_its_sum_a_lie():
    parts, tap = tapped(
        *("channel=secure_aggregation", "n_clients=12", "channel.groups=4"),
        *("attack=sign_flip", "attack.n_malicious=2", "aggregator=median", "assumed_malicious=1"),
    )
    _, record = run_round(parts.experiment, start(parts))
    attackers = set(np.flatnonzero(parts.experiment.malicious).tolist())
    expected = tuple(bool(attackers & set(members)) for members in tap.deliveries[0].members)
    assert record.malicious == expected
    rows = {(m.client, m.metric): m.value for m in record.metrics if m.scope == "update"}
    assert [rows[str(-g), "malicious"] for g in (1, 2, 3, 4)] == list(map(float, expected))
    about = {m.metric: m.value for m in record.metrics if m.scope == "round"}
    assert (about["clients"], about["malicious"]) == (12, 2)


# What is said before the run.


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("privacy=dp_sgd", "privacy.delta=1e-4"), "is above 1/(10 n)"),
        (("privacy=client_dp", "privacy.noise_seed=os"), "noise comes from the operating system"),
    ],
)
def test_what_a_person_should_know(overrides, words):
    (remark,) = built(*overrides).remarks
    assert words in remark


def test_nothing_is_said_where_there_is_nothing_to_say():
    assert built("privacy=dp_sgd").remarks == ()
    assert built().remarks == ()


def test_the_clip_norm_that_moves_is_kept_in_the_state():
    parts = built("privacy=client_dp", "privacy.adaptive=true", "privacy.count_noise=2")
    states = [start(parts)]
    states += [state for state, _ in run_rounds(parts.experiment, states[0])]
    clips = [float(state.privacy["clip_norm"]) for state in states]
    assert clips[0] == 1.0
    assert len(set(clips)) == 4
    assert [int(state.ledger["steps"].max()) for state in states] == [0, 1, 2, 3]
    assert isinstance(parts.experiment.server.privacy, ClientLevel)


@pytest.mark.parametrize(
    ("sampling", "neighbours"),
    [
        (("sampler=poisson", "cohort_size=5"), "add_remove"),
        (("sampler=uniform", "cohort_size=5"), "zero_out"),
        ((), "zero_out"),
        (("sampler=poisson", "cohort_size=5", "privacy.sampling=none"), "zero_out"),
    ],
)
def test_a_cohort_of_a_fixed_size_has_no_room_for_one_more(sampling, neighbours):
    """So a neighbour has zeros for an update there, and is not a cohort with one client less."""
    config = config_for(
        "privacy=client_dp", "privacy.noise_multiplier=1", "privacy.delta=1e-3", *sampling
    )
    account = build(config).experiment.account
    assert account.statement(account.init())["adjacency"] == neighbours


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        (("privacy=dp_sgd", "aggregator=fltrust"), "100 examples that the server takes"),
        (("privacy=input_laplace", "attack=label_flip"), "the examples of malicious clients"),
        (("privacy=input_laplace", "attack=sign_flip"), ""),  # theirs are perturbed like any
        (("privacy=dp_sgd", "attack=label_flip"), ""),
    ],
)
def test_what_is_trained_on_without_the_mechanism_is_not_covered(overrides, left_out):
    parts = built(*overrides)
    account = parts.experiment.account
    said = account.statement(account.init())["not_covered"]
    beyond = [
        sentence for sentence in said if "server takes" in sentence or "malicious" in sentence
    ]
    assert len(beyond) == bool(left_out)
    assert all(left_out in sentence for sentence in beyond)
    assert any(left_out in remark for remark in parts.remarks) or not left_out
