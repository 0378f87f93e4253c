"""What every rule of conf/aggregator must keep, whatever it does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.core.checks import InputError
from tests.support.composing import CONF, choices
from tests.support.updates import updates

N, D = 24, 37  # enough clients for any rule that tolerates two liars
# Rules whose step is not the rows' own: signs have no size, and FLAME adds noise.
STEPS_OF_ITS_OWN = {"sign_majority", "flame"}
CHOICES = choices("aggregator")


def rule_of(choice, assumed_malicious):
    """The rule of a choice, from its YAML."""
    config = OmegaConf.create(
        {
            "n_clients": N,
            "assumed_malicious": assumed_malicious,
            "aggregator": OmegaConf.load(CONF / "aggregator" / f"{choice}.yaml"),
        }
    )
    return instantiate(OmegaConf.to_container(config.aggregator, resolve=True), _convert_="all")


@pytest.fixture(params=CHOICES)
def choice(request):
    return request.param


@pytest.fixture(params=[0, 2])
def rule(choice, request):
    return rule_of(choice, request.param)


def sent(matrix):
    # Rules that trust a row of the server's own get the honest direction, or what all agree on.
    return updates(matrix, reference=matrix.mean(dim=0))


def rows(n=N, d=D, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def rng(seed=0):
    return np.random.default_rng(seed)


def step_of(rule, given):
    return rule(given, rule.init(given.matrix.shape[1]), rng())[0]


def test_the_configs_were_found():
    assert {"mean", "median", "trimmed_mean"} <= set(CHOICES)


@pytest.mark.parametrize("d", [1, D])
def test_a_step_is_one_vector_of_the_rows_type_and_finite(rule, d):
    step = step_of(rule, sent(rows(d=d)))
    assert step.shape == (d,)
    assert step.dtype == torch.float32
    assert step.isfinite().all()


def test_the_input_stays_as_it_was(rule):
    given = sent(rows())
    matrix, num_examples = given.matrix.clone(), given.num_examples.clone()
    rule(given, rule.init(D), rng())
    assert torch.equal(given.matrix, matrix)
    assert torch.equal(given.num_examples, num_examples)


def test_the_step_is_no_view_of_the_buffer_that_the_next_round_reuses(rule):
    given = sent(rows())
    step = step_of(rule, given)
    before = step.clone()
    given.matrix.fill_(7.0)
    assert torch.equal(step, before)


def test_the_order_of_the_clients_plays_no_part(rule):
    given = sent(rows())
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        given,
        matrix=given.matrix[order],
        client_ids=tuple(order.tolist()),
        num_examples=given.num_examples[order],
    )
    torch.testing.assert_close(step_of(rule, shuffled), step_of(rule, given), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("choice", [name for name in CHOICES if name not in STEPS_OF_ITS_OWN])
def test_clients_that_agree_get_what_they_say(rule):
    row = rows(1)[0]
    torch.testing.assert_close(step_of(rule, sent(row.repeat(N, 1))), row, rtol=1e-6, atol=1e-6)


def test_the_same_input_gives_the_same_bits(rule):
    assert torch.equal(step_of(rule, sent(rows())), step_of(rule, sent(rows())))


def test_a_single_client_is_followed_or_refused(choice):
    row = rows(1)
    rule = rule_of(choice, 0)
    try:
        step = step_of(rule, sent(row))
    except InputError:  # a rule that needs more clients says so
        assert choice not in ("mean", "median", "trimmed_mean")
    else:
        if choice not in STEPS_OF_ITS_OWN:
            torch.testing.assert_close(step, row[0], rtol=1e-6, atol=1e-6)


def test_more_liars_than_clients_are_refused_by_those_who_count_them(choice):
    rule = rule_of(choice, 3)
    if hasattr(rule, "assumed_malicious"):
        with pytest.raises(InputError, match="assumed_malicious=3"):
            step_of(rule, sent(rows(2)))
    else:
        assert step_of(rule, sent(rows(2))).shape == (D,)


def test_the_state_is_handed_back_in_its_shape_and_never_written_to(rule):
    before = rule.init(D)
    copies = {name: tensor.clone() for name, tensor in before.items()}
    _, after = rule(sent(rows()), before, rng())
    assert {k: (v.shape, v.dtype) for k, v in after.items()} == {
        k: (v.shape, v.dtype) for k, v in before.items()
    }
    for name, tensor in copies.items():
        assert torch.equal(before[name], tensor)
    step, _ = rule(sent(rows(seed=1)), after, rng())
    assert step.shape == (D,)
