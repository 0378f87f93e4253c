"""A part that sets torch's default type would change what every other part makes."""

import numpy as np
import pytest
import torch

from fedexp.config.parts import Parts
from fedexp.core.checks import InputError
from fedexp.core.own_code import own_code_named
from fedexp.federation.rounds import run_rounds
from tests.support.toy_rounds import experiment, start_of

SAYS = r"sets torch's default type to torch.float64, which all parts share; give dtype="


class Sets:
    """A sampler that does so when it is made or, as here, when it is asked."""

    def __init__(self, at_once=False):
        if at_once:
            torch.set_default_dtype(torch.float64)

    def __call__(self, n_clients, rng):
        torch.set_default_dtype(torch.float64)
        return np.arange(n_clients)


@pytest.fixture(autouse=True)
def is_put_back():
    yield
    changed = torch.get_default_dtype() != torch.float32
    torch.set_default_dtype(torch.float32)
    assert not changed


def test_a_part_that_sets_it_when_it_is_made_is_named():
    target = f"{__name__}.Sets"
    make = Parts({"sampler": {"_target_": target, "at_once": True}}, trust=["tests."])
    with pytest.raises(InputError, match=rf"^sampler._target_={target}: {SAYS}"):
        make("sampler")


def test_a_round_in_which_it_is_set_is_not_counted():
    exp = experiment(sampler=Sets())
    with pytest.raises(InputError, match=f"^a part {SAYS}"):
        next(run_rounds(exp, start_of(exp)))


@own_code_named()
def mixed_up():
    torch.set_default_dtype(torch.float64)
    torch.nn.Linear(2, 2)(torch.ones(1, 2, dtype=torch.float32))


def test_it_is_told_in_the_place_of_what_comes_of_it():
    with pytest.raises(InputError, match=f"^a part {SAYS}"):
        mixed_up()
