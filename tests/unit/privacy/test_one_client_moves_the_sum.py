"""How far one client moves a noised sum when there is an adversary, by brute force.

Noise is made for one clip norm. With f malicious rows that are computed from the honest ones the
sum may move by up to 1 + 2 f: every attack says whether it does that, and is tried here.
"""

import numpy as np
import pytest
import torch

from fedexp.channel.skellam import Skellam
from fedexp.config.build import build
from fedexp.core.capabilities import sees_other_clients
from fedexp.core.checks import InputError
from fedexp.core.types import Updates
from fedexp.federation.own_rows import OwnRowsOnly, held_to_its_word
from tests.support.composing import choices, config_for, part
from tests.support.mechanisms import client_level
from tests.support.refusing import refusal
from tests.support.servers_to_try import MeanOfRows

HONEST, MALICIOUS, D, C = 6, 3, 8, 1.0
FIXED = {"scaling": ("attack.factor=3.0",)}  # its own default depends on how many clients answer
ROUNDS = [(scale, seed) for scale in (0.1, 1.0, 30.0) for seed in (0, 1)]


def attack_of(choice):
    return part("attack", choice, *FIXED.get(choice, ()))


def rows(scale, seed):
    """Honest rows around a centre of their own, one of them on the other side; then malicious."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.randn(D, generator=g)
    matrix = scale * (centre + 0.3 * torch.randn(HONEST + MALICIOUS, D, generator=g))
    matrix[0] = -3 * matrix[1]
    return matrix


def sum_behind_client_dp(attack, matrix, there):
    """The sum that gets the noise of `client_dp`, of the clients that are `there`."""
    runtime = client_level(clip_norm=C)
    state = runtime.init(D)
    clients = Updates(
        matrix[there],
        tuple(np.flatnonzero(there.numpy()).tolist()),
        torch.ones(int(there.sum()), dtype=torch.float64),
    )
    malicious = torch.tensor([k >= HONEST for k in clients.client_ids])
    sent = attack.rewrite(
        runtime.on_client(clients, state, np.random.default_rng(0)),
        malicious,
        MeanOfRows(),
        np.random.default_rng(1),
    )
    received = runtime.on_receipt(sent, state).matrix
    return received[received.isfinite().all(dim=1)].sum(dim=0)


def sum_behind_skellam(attack, matrix, there):
    """The same sum of `secure_skellam`, in units of the row; who is not there sends zeros."""
    encoder = Skellam(clip_norm=C, noise_multiplier=1e-12, scale=2.0**20)
    shown = torch.where(there[:, None], matrix, 0.0)
    ids = tuple(range(len(shown)))
    malicious = torch.arange(len(shown)) >= HONEST
    clients = Updates(shown, ids, torch.ones(len(shown), dtype=torch.float64))
    rng = np.random.default_rng(1)
    sent = attack.rewrite(clients, malicious, MeanOfRows(), rng).matrix.numpy()
    encoded = [
        encoder.encode(row, len(sent), np.random.default_rng(k)).values
        for k, row in enumerate(sent)
        if np.isfinite(row).all()
    ]
    return torch.from_numpy(np.sum(encoded, axis=0) / encoder.scale)


SUMS = {"client_dp": sum_behind_client_dp, "secure_skellam": sum_behind_skellam}


def furthest(attack, mechanism):
    """How far, in clip norms, any one honest client moved the sum in any of the rounds."""
    everybody = torch.ones(HONEST + MALICIOUS, dtype=torch.bool)
    moved = 0.0
    for scale, seed in ROUNDS:
        matrix = rows(scale, seed)
        whole = SUMS[mechanism](attack, matrix, everybody)
        for client in range(HONEST):
            there = everybody.clone()
            there[client] = False
            without = SUMS[mechanism](attack, matrix, there)
            moved = max(moved, float(torch.linalg.vector_norm(whole - without)))
    return moved / C


@pytest.mark.parametrize("mechanism", SUMS)
@pytest.mark.parametrize("choice", choices("attack"))
def test_one_client_moves_the_sum_by_what_the_attack_lets_it(choice, mechanism):
    attack = attack_of(choice)
    moved = furthest(attack, mechanism)
    most = 1 + 2 * MALICIOUS if sees_other_clients(attack) else 1
    assert moved <= most + 1e-4, f"{choice} lets one client move the sum by {moved:.2f} clip norms"


@pytest.mark.parametrize("choice", ["mimic", "alie", "min_max"])
def test_attacks_that_read_the_others_really_move_it_further(choice):
    assert sees_other_clients(attack_of(choice))
    assert furthest(attack_of(choice), "client_dp") > 1.2


def test_a_factor_that_follows_the_cohort_sees_the_others():
    by_cohort = part("attack", "scaling", "attack.factor=null")
    assert sees_other_clients(by_cohort)
    matrix = torch.zeros(HONEST + MALICIOUS, D)
    matrix[:HONEST, 0], matrix[HONEST:, 0] = C, 0.2 * C
    everybody = torch.ones(len(matrix), dtype=torch.bool)
    whole, without = (
        float(sum_behind_client_dp(by_cohort, matrix, there)[0])
        for there in (everybody, everybody & (torch.arange(len(matrix)) > 0))
    )
    # Three rows of 0.2, times 9 / 3 and 8 / 3: 1.8 and 1.6, and the one row itself.
    assert whole - without == pytest.approx(1.2, abs=1e-5)


CLAIMS = {
    "client_dp": ("privacy=client_dp", "privacy.delta=1e-3"),
    "secure_skellam": ("channel=secure_skellam", "channel.delta=1e-3"),
}


@pytest.mark.parametrize("mechanism", CLAIMS)
@pytest.mark.parametrize("choice", [c for c in choices("attack") if c != "none"])
def test_who_reads_the_others_is_refused_and_who_does_not_is_not(choice, mechanism):
    overrides = (
        *CLAIMS[mechanism],
        f"attack={choice}",
        *FIXED.get(choice, ()),
        "attack.n_malicious=4",
        "backend=in_process",
    )
    if sees_other_clients(attack_of(choice)):
        line = refusal(config_for(*overrides))
        assert line.startswith("attack=fedexp.attacks.")
        assert "1 + 2 n_malicious = 9 clip norms" in line
        assert "privacy=local_gaussian" in line
    else:
        built = build(config_for(*overrides))
        assert not sees_other_clients(built.experiment.attack)


def test_noise_in_the_clients_goes_with_any_attack():
    for privacy in ("privacy=local_gaussian", "privacy=dp_sgd"):
        build(config_for(privacy, "attack=mimic", "privacy.delta=1e-4", "backend=in_process"))


def test_an_attack_without_malicious_clients_reads_nothing():
    build(config_for(*CLAIMS["client_dp"], "attack=mimic", "attack.n_malicious=0"))


class Says:
    """Says that it sees its own clients alone, and sends what it finds of the others."""

    sees_other_clients = False

    def rewrite(self, updates, malicious, rule, rng):
        matrix = updates.matrix.clone()
        matrix[malicious] = len(updates) * updates.matrix[0]
        return updates.with_matrix(matrix)


class Asks(Says):
    def rewrite(self, updates, malicious, rule, rng):
        return updates.with_matrix(rule(updates.matrix).expand_as(updates.matrix))


def test_the_word_of_an_attack_is_made_true():
    attack = held_to_its_word(Says())
    assert furthest(attack, "client_dp") <= 1 + 1e-4
    assert furthest(Says(), "client_dp") > 5
    with pytest.raises(InputError, match="sees no other clients"):
        furthest(held_to_its_word(Asks()), "client_dp")


def test_honest_rows_keep_their_bits_and_the_attack_what_it_draws():
    matrix = rows(1.0, 0)
    malicious = torch.arange(len(matrix)) >= HONEST
    clients = Updates(matrix, tuple(range(len(matrix))), torch.ones(len(matrix)))
    attack = part("attack", "gaussian", "attack.added=true")
    shown, whole = (
        a.rewrite(clients, malicious, None, np.random.default_rng(3)).matrix
        for a in (OwnRowsOnly(attack), attack)
    )
    assert torch.equal(shown, whole)
    assert torch.equal(shown[:HONEST], matrix[:HONEST])
