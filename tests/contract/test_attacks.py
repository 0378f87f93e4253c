"""What every attack of conf/attack must keep: it touches what it controls, and nothing else."""

import math

import numpy as np
import pytest
import torch

from fedexp.core.examples import Split
from fedexp.core.types import Updates
from tests.support.composing import choices, config_for, part
from tests.support.servers_to_try import MeanOfRows

N, D = 12, 19


rule = MeanOfRows()


MASKS = {
    "none": [],
    "first": [0],
    "a quarter": [2, 5, 11],
    "half": [0, 1, 4, 6, 9, 10],
    "all": list(range(N)),
}


@pytest.fixture(params=choices("attack"))
def choice(request):
    return request.param


@pytest.fixture
def attack(choice):
    return part("attack", choice)


@pytest.fixture
def updates():
    matrix = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    num_examples = torch.arange(1, N + 1, dtype=torch.float64)
    ids = tuple(range(100, 100 + N))
    return Updates(matrix, ids, num_examples, 78, tuple({"loss": float(k)} for k in range(N)))


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    return Split(torch.rand(40, 1, 8, 8, generator=g), torch.arange(40) % 10)


def mask(name):
    malicious = torch.zeros(N, dtype=torch.bool)
    malicious[MASKS[name]] = True
    return malicious


def rng(seed=0):
    return np.random.default_rng(seed)


def bits(matrix):
    return matrix.contiguous().view(torch.int32)


def test_the_configs_were_found():
    assert {"none", "sign_flip"} <= set(choices("attack"))


def test_says_how_many_clients_the_adversary_controls(choice):
    node = config_for(f"attack={choice}")["attack"]
    assert isinstance(node["n_malicious"], int)
    assert 0 <= node["fraction"] <= 1
    assert config_for("attack=" + choice, "attack.n_malicious=3")["attack"]["n_malicious"] == 3


@pytest.mark.parametrize("controlled", MASKS)
def test_honest_rows_keep_their_bits(attack, updates, controlled):
    malicious = mask(controlled)
    rewritten = attack.rewrite(updates, malicious, rule, rng())
    assert rewritten.matrix.shape == updates.matrix.shape
    assert rewritten.matrix.dtype == torch.float32
    assert torch.equal(bits(rewritten.matrix[~malicious]), bits(updates.matrix[~malicious]))
    assert rewritten.client_ids == updates.client_ids


def test_honest_rows_keep_their_bits_also_where_training_diverged(attack, updates):
    malicious = mask("a quarter")
    updates.matrix[1] = math.nan
    updates.matrix[3] = math.inf
    updates.matrix[4] = -0.0
    updates.matrix[6] = 1e-42  # denormal
    rewritten = attack.rewrite(updates, malicious, rule, rng())
    assert torch.equal(bits(rewritten.matrix[~malicious]), bits(updates.matrix[~malicious]))


def test_one_honest_client_whose_training_diverged_does_not_break_the_attack(
    choice, attack, updates
):
    malicious = mask("a quarter")
    for value in (math.nan, math.inf, 3e38):
        updates.matrix[1] = value
        sent = attack.rewrite(updates, malicious, rule, rng()).matrix[malicious]
        assert sent.isfinite().all() or choice == "broken"


@pytest.mark.parametrize("controlled", MASKS)
def test_what_was_given_stays_as_it_was(attack, updates, controlled):
    matrix, num_examples = updates.matrix.clone(), updates.num_examples.clone()
    malicious = mask(controlled)
    attack.rewrite(updates, malicious, rule, rng())
    assert torch.equal(updates.matrix, matrix)
    assert torch.equal(updates.num_examples, num_examples)
    assert torch.equal(malicious, mask(controlled))


def test_without_malicious_clients_nothing_changes(attack, updates):
    rewritten = attack.rewrite(updates, mask("none"), rule, rng())
    assert torch.equal(bits(rewritten.matrix), bits(updates.matrix))
    assert torch.equal(rewritten.num_examples, updates.num_examples)
    assert rewritten.metrics == updates.metrics
    assert rewritten.processed == updates.processed


def test_an_empty_cohort_is_passed_on(attack):
    nobody = Updates(torch.empty(0, D), (), torch.empty(0, dtype=torch.float64))
    rewritten = attack.rewrite(nobody, torch.empty(0, dtype=torch.bool), rule, rng())
    assert rewritten.matrix.shape == (0, D)


def test_the_same_stream_gives_the_same_rows(attack, updates):
    first, again = (attack.rewrite(updates, mask("half"), rule, rng(3)) for _ in range(2))
    assert torch.equal(bits(first.matrix), bits(again.matrix))


def test_global_generators_play_no_part(attack, updates, data):
    torch.manual_seed(0)
    np.random.seed(0)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = attack.rewrite(updates, mask("half"), rule, rng(3)).matrix
    attack.poison(data, rng(3))
    assert np.array_equal(np.random.get_state()[1], np_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.manual_seed(5)
    np.random.seed(5)
    again = attack.rewrite(updates, mask("half"), rule, rng(3)).matrix
    assert torch.equal(bits(again), bits(first))  # bits: NaN is a row that one of them sends


def test_poisoned_data_have_the_shape_of_the_clients_own(attack, data):
    poisoned = attack.poison(data, rng())
    assert poisoned.x.shape == data.x.shape
    assert poisoned.x.dtype == data.x.dtype
    assert poisoned.y.shape == data.y.shape
    assert poisoned.y.dtype == data.y.dtype
    assert poisoned.y.min() >= 0
    assert poisoned.y.max() <= 9
    assert poisoned.x.isfinite().all()


def test_poisoning_leaves_the_clients_own_data_as_they_were(attack, data):
    x, y = data.x.clone(), data.y.clone()
    first, again = (attack.poison(data, rng(3)) for _ in range(2))
    assert torch.equal(data.x, x)
    assert torch.equal(data.y, y)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
