"""An encoder of somebody's own behind secure aggregation: what it returns is looked at."""

import numpy as np
import pytest
import torch

from fedexp.channel.encoder import Encoded
from fedexp.core.checks import InputError
from tests.unit.channel.test_secagg_channel import channel, rng, updates


class Whole:
    """Thousandths."""

    def encode(self, row, survivors, rng):
        return Encoded(np.rint(1000 * row).astype(np.int64), 0)

    def bounded(self, rows):
        return rows

    def decode(self, total, weight):
        return (total / weight / 1000).astype(np.float32)

    def largest_sum(self, clients, survivors, d):
        return 10_000 * clients


def other(**methods):
    return type("Other", (Whole,), {k: staticmethod(f) for k, f in methods.items()})()


def test_an_encoder_of_ones_own_brings_the_mean():
    sent = updates()
    delivery = channel(encoder=Whole(), weighting="uniform").transmit(sent, rng())
    assert torch.allclose(delivery.updates.matrix[0], sent.matrix.mean(dim=0), atol=1e-3)


WRONG = {
    "no Encoded": (
        {"encode": lambda row, survivors, rng: row},
        r"channel.encoder=.*Other: must return Encoded \(encode\), and returned \[50\] float32",
    ),
    "numbers that are not whole": (
        {"encode": lambda row, survivors, rng: Encoded(1000 * row, 0)},
        r"must return values \[50\] int64 \(encode\), and returned \[50\] float32",
    ),
    "a number too few": (
        {"encode": lambda row, survivors, rng: Encoded(np.zeros(49, np.int64), 0)},
        r"must return values \[50\] int64 \(encode\), and returned \[49\] int64",
    ),
    "no float32": (
        {"decode": lambda total, weight: total / weight},
        r"must return a row \[50\] float32 \(decode\), and returned \[50\] float64",
    ),
}


@pytest.mark.parametrize(("methods", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_an_encoder_returns_is_looked_at(methods, message):
    """Numbers that are not whole were added up as something, the rest was a traceback."""
    with pytest.raises(InputError, match=message):
        channel(encoder=other(**methods)).transmit(updates(), rng())


@pytest.mark.parametrize("largest", [1e300, None, -1])
def test_the_largest_sum_is_a_whole_number(largest):
    sent = channel(encoder=other(largest_sum=lambda clients, survivors, d: largest))
    with pytest.raises(InputError, match=r"^encoder=.*must return a whole number, 0 or above"):
        sent.check(9, 50)


def test_an_encoder_that_lacks_a_method_is_told_which():
    class Half:
        encode = bounded = Whole.encode

    with pytest.raises(InputError, match=r"encoder=.*Half: has no decode, largest_sum"):
        channel(encoder=Half())
