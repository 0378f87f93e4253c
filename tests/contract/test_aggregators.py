"""What every rule of conf/aggregator must keep: the contract of `fedexp.testing`, and more."""

from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.schema import register
from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.testing import AGGREGATOR_CONTRACT, CLIENTS, NUMBERS, check_aggregator, rows, sent
from tests.support.composing import CONF, choices

# Rules whose step is not the rows' own: signs have no size, and FLAME adds noise.
STEPS_OF_ITS_OWN = {"sign_majority", "flame"}
CHOICES = choices("aggregator")


def rule_of(choice, assumed_malicious):
    """The rule of a choice, from its YAML."""
    register()
    config = OmegaConf.create(
        {
            "n_clients": CLIENTS,
            "assumed_malicious": assumed_malicious,
            "aggregator": OmegaConf.load(CONF / "aggregator" / f"{choice}.yaml"),
        }
    )
    return instantiate(OmegaConf.to_container(config.aggregator, resolve=True), _convert_="all")


@pytest.fixture(params=CHOICES)
def choice(request):
    return request.param


def step_of(rule, given):
    return rule(given, rule.init(NUMBERS), generator(0, "check"))[0]


def test_the_configs_were_found():
    assert {"mean", "median", "trimmed_mean"} <= set(CHOICES)


@pytest.mark.parametrize("check", AGGREGATOR_CONTRACT)
@pytest.mark.parametrize("assumed_malicious", [0, 2])
def test_the_contract(choice, assumed_malicious, check):
    rule = rule_of(choice, assumed_malicious)
    if check == "agreement" and choice in STEPS_OF_ITS_OWN:
        with pytest.raises(AssertionError, match="do not get that row back"):
            AGGREGATOR_CONTRACT[check](rule)
    else:
        AGGREGATOR_CONTRACT[check](rule)


def test_the_whole_contract_at_once(choice):
    check_aggregator(rule_of(choice, 2), follows_agreement=choice not in STEPS_OF_ITS_OWN)


@pytest.mark.parametrize("assumed_malicious", [0, 2])
def test_order_and_agreement_to_the_rounding_of_float32(choice, assumed_malicious):
    """Ours are held to ten times less than the contract."""
    rule, given = rule_of(choice, assumed_malicious), rows()
    order = torch.randperm(CLIENTS, generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        given,
        matrix=given.matrix[order],
        client_ids=tuple(order.tolist()),
        num_examples=given.num_examples[order],
    )
    torch.testing.assert_close(step_of(rule, shuffled), step_of(rule, given), rtol=1e-6, atol=1e-6)
    if choice not in STEPS_OF_ITS_OWN:
        row = given.matrix[0]
        step = step_of(rule, sent(row.repeat(CLIENTS, 1)))
        torch.testing.assert_close(step, row, rtol=1e-6, atol=1e-6)


def test_a_single_client_is_followed_or_refused(choice):
    row = rows(1)
    rule = rule_of(choice, 0)
    try:
        step = step_of(rule, row)
    except InputError:  # a rule that needs more clients says so
        assert choice not in ("mean", "median", "trimmed_mean")
    else:
        if choice not in STEPS_OF_ITS_OWN:
            torch.testing.assert_close(step, row.matrix[0], rtol=1e-6, atol=1e-6)


def test_more_liars_than_clients_are_refused_by_those_who_count_them(choice):
    rule = rule_of(choice, 3)
    if hasattr(rule, "assumed_malicious"):
        with pytest.raises(InputError, match="assumed_malicious=3"):
            step_of(rule, rows(2))
    else:
        assert step_of(rule, rows(2)).shape == (NUMBERS,)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38, 1e25])
@pytest.mark.parametrize("broken", [1, 4])
def test_broken_rows_give_a_step_or_a_refusal_and_no_crash(choice, value, broken):
    """Nothing drops them with `update_validation=none`; more may come than are assumed."""
    rule, given = rule_of(choice, 2), rows().matrix
    given[:broken] = value
    try:
        step = step_of(rule, sent(given))
    except InputError as refusal:
        said = str(refusal)
    else:
        said = f"update_validation=standard: {tuple(step.shape)}"
    assert "update_validation=standard" in said


@pytest.mark.parametrize("choice", ["krum", "multi_krum", "weighted_krum", "weighted_multi_krum"])
def test_krum_does_not_choose_rows_that_are_too_long_to_be_squared(choice):
    given = rows().matrix
    given[:2] = torch.tensor([[1e25], [-1e25]])
    without = given.clone()
    without[:2] = torch.tensor([[1e6], [-1e6]])
    rule = rule_of(choice, 2)
    torch.testing.assert_close(step_of(rule, sent(given)), step_of(rule, sent(without)))


def test_bulyan_is_of_the_rows_that_are_numbers():
    given = rows().matrix
    given[0], given[5] = torch.nan, torch.inf
    far = given.clone()
    far[0], far[5] = 1e6, -1e6
    rule = rule_of("bulyan", 2)
    torch.testing.assert_close(step_of(rule, sent(given)), step_of(rule, sent(far)))
