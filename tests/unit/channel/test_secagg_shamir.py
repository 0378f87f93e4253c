"""Shares of a secret: t of them give it, t - 1 say nothing, a wrong one is noticed."""

import itertools

import pytest
from scipy.stats import chisquare

from fedexp.channel.shamir import PRIME, commitment_to, reconstruct_secret, share_secret
from fedexp.channel.violations import ProtocolError, TooFewClients
from fedexp.core.checks import InputError

SECRET = bytes(range(32))


@pytest.mark.parametrize(("threshold", "n"), [(2, 2), (2, 3), (3, 5), (5, 5)])
def test_any_t_shares_give_the_secret(threshold, n):
    shared = share_secret(SECRET, threshold, range(1, n + 1))
    for chosen in itertools.combinations(range(1, n + 1), threshold):
        shares = {x: shared.shares[x] for x in chosen}
        assert reconstruct_secret(shares, threshold, shared.commitment) == SECRET


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_extreme_secrets_come_back(secret):
    shared = share_secret(secret, 3, [9, 4, 1_000_000])
    assert reconstruct_secret(shared.shares, 3, shared.commitment) == secret


def test_a_polynomial_by_hand():
    # f(x) = 7 + 3 x + x^2: f(1) = 11, f(2) = 17, f(4) = 35.
    secret = (7).to_bytes(32, "little")
    assert reconstruct_secret({1: 11, 2: 17, 4: 35}, 3, commitment_to(secret)) == secret


def test_too_few_shares_are_refused():
    shared = share_secret(SECRET, 3, [1, 2, 3])
    with pytest.raises(TooFewClients, match="2 of the 3 shares"):
        reconstruct_secret({x: shared.shares[x] for x in (1, 2)}, 3, shared.commitment)


@pytest.mark.parametrize("change", [1, -1, 1 << 300])
def test_a_tampered_share_is_noticed(change):
    shared = share_secret(SECRET, 3, [1, 2, 3])
    shares = {**shared.shares, 2: (shared.shares[2] + change) % PRIME}
    with pytest.raises(ProtocolError, match="tampered"):
        reconstruct_secret(shares, 3, shared.commitment)


def test_a_share_of_another_secret_is_noticed():
    one, other = (share_secret(SECRET, 2, [1, 2]) for _ in range(2))
    with pytest.raises(ProtocolError, match="tampered"):
        reconstruct_secret({1: one.shares[1], 2: other.shares[2]}, 2, one.commitment)


@pytest.mark.parametrize(
    ("threshold", "holders", "message"),
    [
        (1, [1, 2, 3], "threshold=1: must lie between 2 and the 3"),
        (0, [1, 2, 3], "threshold=0"),
        (4, [1, 2, 3], "threshold=4"),
        (2, [1, 2, 2], "must be distinct"),
        (2, [0, 1, 2], "1 or above"),  # the share of 0 is the secret
        (2, [1, PRIME], "1 or above"),  # and so is that of p
    ],
)
def test_thresholds_and_holders_that_give_the_secret_away_are_refused(threshold, holders, message):
    with pytest.raises(InputError, match=message):
        share_secret(SECRET, threshold, holders)


def test_secrets_of_another_length_are_refused():
    with pytest.raises(InputError, match="16 bytes"):
        share_secret(bytes(16), 2, [1, 2])


def top_byte_p_value(values):
    counts = [0] * 256
    for value in values:
        counts[value >> 513] += 1
    return chisquare(counts).pvalue


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_two_of_three_shares_are_uniform_whatever_the_secret(secret):
    sharings = [share_secret(secret, 3, [1, 2, 3]).shares for _ in range(6000)]
    # The last is what two shares would give if two were enough: the line through them, at 0.
    views = (
        [s[1] for s in sharings],
        [s[2] for s in sharings],
        [(2 * s[1] - s[2]) % PRIME for s in sharings],
    )
    assert all(top_byte_p_value(view) > 1e-6 for view in views)


def test_all_three_shares_are_not():
    sharings = [share_secret(bytes(32), 3, [1, 2, 3]).shares for _ in range(600)]
    line = [(2 * s[1] - s[2]) % PRIME for s in sharings]
    parabola = [(3 * s[1] - 3 * s[2] + s[3]) % PRIME for s in sharings]
    assert set(parabola) == {0}
    assert top_byte_p_value(line) > 1e-6
    assert top_byte_p_value(parabola) < 1e-12
