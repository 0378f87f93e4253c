"""Which rounds are attacked, by how many, and what malicious clients do in the others."""

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core.attack_schedule import AttackSchedule, malicious_in_a_cohort, schedule_of
from fedexp.core.capabilities import sampling_of
from fedexp.core.checks import InputError
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.federation.sampling import Uniform, WithMalicious
from tests.support.composing import config_for

SMALL = ("rounds=4", "n_clients=6", "train_examples=240", "plots=false", "model.hidden=[8]")


def attacked(schedule, of):
    return [r for r in range(of) if schedule.attacks(r)]


def test_rounds_from_the_first_to_the_last():
    assert attacked(AttackSchedule(), 3) == [0, 1, 2]
    assert attacked(AttackSchedule(1, 2), 5) == [1, 2]
    assert attacked(AttackSchedule(1, None), 4) == [1, 2, 3]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_a_share_of_the_rounds_is_spread_evenly(share):
    schedule = AttackSchedule(5, 104, share)
    rounds = attacked(schedule, 200)
    assert len(rounds) == schedule.rounds(200) == round(100 * share)
    gaps = set(np.diff(rounds).tolist())
    assert max(gaps) - min(gaps) <= 1
    assert all(5 <= r <= 104 for r in rounds)


@pytest.mark.parametrize(("share", "of"), [(0.29, 100), (0.57, 200), (0.58, 50)])
def test_a_share_that_makes_a_whole_number_is_not_rounded_down(share, of):
    """0.29 times 100 is 28.999999999999996."""
    assert AttackSchedule(0, None, share).rounds(of) == round(share * of)


def test_a_cohort_has_as_many_malicious_clients_as_asked_for():
    malicious = np.arange(20) < 5
    sampler = WithMalicious(Uniform(8), malicious, 3)
    rng = np.random.default_rng(0)
    cohorts = [sampler(20, rng) for _ in range(300)]
    assert {int(malicious[c].sum()) for c in cohorts} == {3}
    assert {len(set(c.tolist())) for c in cohorts} == {8}
    assert all((np.diff(c) > 0).all() for c in cohorts)
    taken = np.bincount(np.concatenate(cohorts), minlength=20) / 300
    np.testing.assert_allclose(taken[:5], 3 / 5, atol=0.12)
    np.testing.assert_allclose(taken[5:], 5 / 15, atol=0.12)
    assert sampling_of(sampler, 20) is None  # no account may count on such draws


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ({"first_round": 3, "last_round": 2}, "last_round=2"),
        ({"first_round": 0, "last_round": 1.5}, "last_round=1.5"),
        ({"first_round": 0, "schedule": {"share_of_rounds": 0}}, "schedule.share_of_rounds=0"),
        ({"first_round": 0, "schedule": {"share": 0.5}}, "schedule.share=0.5"),
        ({"first_round": 0, "schedule": "often"}, "schedule=often"),
    ],
)
def test_what_is_no_schedule_is_refused(attack, said):
    with pytest.raises(InputError, match=said):
        schedule_of(attack)
    with pytest.raises(InputError, match="clients_a_round"):
        malicious_in_a_cohort({"schedule": {"clients_a_round": 0}})


def test_a_share_of_less_than_a_round_and_an_end_that_is_not_reached_are_told():
    """Rounds count from 0, so that 3 is the last one of four."""
    half = "attack.schedule.share_of_rounds=0.5"
    with pytest.raises(InputError, match=r"share_of_rounds=0\.5: is less than one of .* 0 to 0$"):
        build(config_for(*SMALL, "attack=sign_flip", "attack.last_round=0", half))
    for last, told in ((3, 0), (4, 1)):
        built = build(config_for(*SMALL, "attack=sign_flip", f"attack.last_round={last}"))
        assert sum("is not reached" in remark for remark in built.remarks) == told


def test_a_number_of_a_cohort_whose_size_is_drawn_is_refused_before_the_run():
    """A later round's cohort would be too small for it, and end the run there."""
    of_two = ["attack=sign_flip", "attack.n_malicious=4", "+attack.schedule.clients_a_round=2"]
    with pytest.raises(InputError, match=r"attack\.schedule\.clients_a_round=2: .*sampler=uniform"):
        build(config_for(*SMALL, "sampler=poisson", "cohort_size=4", *of_two))


def test_who_is_left_out_of_cohorts_is_not_exchanged_into_them():
    """Whether that client is honest or malicious, and also where it is drawn by its number."""
    fixed = ["attack=sign_flip", "attack.schedule.clients_a_round=2", "sampler=all_but"]
    for left_out in range(6):
        built = build(config_for(*SMALL, *fixed, "cohort_size=4", f"sampler.left_out={left_out}"))
        exp, rng = built.experiment, np.random.default_rng(0)
        cohorts = [exp.sampler(6, rng) for _ in range(50)]
        assert not any(left_out in cohort for cohort in cohorts)
        drawn = {int(exp.malicious[cohort].sum()) for cohort in cohorts}
        assert drawn == {1 if exp.malicious[left_out] else 2}
    poisson = "sampler.sampler._target_=fedexp.federation.sampling.Poisson"
    with pytest.raises(InputError, match="sampler=uniform"):
        build(config_for(*SMALL, *fixed, "cohort_size=4", poisson))


@pytest.mark.parametrize("nobody", ["attack=none", "attack.n_malicious=0"])
def test_the_run_without_an_adversary_draws_as_its_sampler_says(nobody):
    """It stands beside attacked ones in the same sweep."""
    fixed = ["attack=sign_flip", "attack.schedule.clients_a_round=1", "cohort_size=4"]
    built = build(config_for(*SMALL, *fixed, nobody))
    assert built.experiment.sampler == Uniform(4)


def test_more_malicious_clients_than_a_cohort_has_are_refused():
    with pytest.raises(InputError, match=r"clients_a_round=3: a cohort has 2 clients"):
        WithMalicious(Uniform(2), np.arange(6) < 3, 3)(6, np.random.default_rng(0))


def models(*overrides):
    built = build(config_for(*SMALL, "backend=in_process", *overrides))
    exp = built.experiment
    start = torch.nn.utils.parameters_to_vector(built.model.parameters()).detach()
    return [state.params.clone() for state, _ in run_rounds(exp, initial_state(exp, start))]


@pytest.mark.parametrize("attack", ["label_flip", "sign_flip"])
def test_before_and_after_their_attack_clients_train_on_their_own_data(attack):
    """Rounds 0 and 1 are those of a run without an adversary; round 2 is attacked."""
    peace = models("attack=none")
    war = models(f"attack={attack}", "attack.first_round=2", "attack.last_round=2")
    always = models(f"attack={attack}")
    same = [torch.equal(a, b) for a, b in zip(peace, war, strict=True)]
    assert same == [True, True, False, False]
    assert not torch.equal(always[0], peace[0])


def test_after_the_last_attack_the_data_are_clean_again():
    """From the same model on, a round after the attack moves as a round of peace does."""
    built = build(config_for(*SMALL, "attack=label_flip", "attack.last_round=0", "rounds=2"))
    plain = build(config_for(*SMALL, "attack=none", "rounds=2"))
    exp, peace = built.experiment, plain.experiment
    start = torch.nn.utils.parameters_to_vector(built.model.parameters()).detach()
    states = [state for state, _ in run_rounds(exp, initial_state(exp, start))]
    first, second = (state.params for state in states)
    from_here = initial_state(peace, first)
    from_here = type(from_here)(**{**vars(from_here), "round": 1})
    (honest, _), *_ = run_rounds(peace, from_here)
    torch.testing.assert_close(second, honest.params, rtol=0, atol=0)
