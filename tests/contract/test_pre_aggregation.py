"""What every choice of conf/pre_aggregation must keep, whatever it does to the rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.support.composing import CONF, choices
from tests.support.updates import updates

N, D = 12, 37
CHOICES = [name for name in choices("pre_aggregation") if name != "none"]
RANDOM = ("bucketing",)  # the order of the clients decides, with the stream, who is mixed with whom


def parts(choice, assumed_malicious):
    """The choice's own parts, in order, from its YAML."""
    config = OmegaConf.create(
        {
            "assumed_malicious": assumed_malicious,
            "pre_aggregation": OmegaConf.load(CONF / "pre_aggregation" / f"{choice}.yaml"),
        }
    )
    nodes = OmegaConf.to_container(config.pre_aggregation, resolve=True)
    return {name: instantiate(node, _convert_="all") for name, node in nodes.items()}


@pytest.fixture(params=CHOICES)
def choice(request):
    return request.param


@pytest.fixture(params=[0, 2])
def mix(choice, request):
    return parts(choice, request.param)[choice]


def rows(n=N, d=D, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_configs_were_found():
    found = set(choices("pre_aggregation"))
    assert {"none", "nnm", "bucketing", "clipping", "adaptive_clipping"} <= found


def test_none_is_nothing():
    assert parts("none", 2) == {}


def test_a_file_holds_one_part_under_its_own_name(choice):
    # Several files are merged into one mapping: two parts of one name would overwrite each other.
    assert list(parts(choice, 0)) == [choice]


@pytest.mark.parametrize("d", [1, D])
def test_rows_stay_rows(mix, d):
    mixed = mix(updates(rows(d=d)), rng())
    n = len(mixed)
    assert 1 <= n <= N
    assert mixed.matrix.shape == (n, d)
    assert mixed.matrix.dtype == torch.float32
    assert mixed.matrix.isfinite().all()
    assert mixed.num_examples.shape == (n,)
    assert mixed.num_examples.dtype == torch.float64
    assert len(mixed.metrics) in (0, n)


def test_weights_work_and_reference_are_kept(mix):
    given = updates(rows(), reference=torch.ones(D))
    mixed = mix(given, rng())
    assert float(mixed.num_examples.sum()) == float(given.num_examples.sum())
    assert mixed.processed == given.processed
    assert mixed.reference is given.reference


def test_a_row_is_a_clients_own_or_says_that_it_is_none(mix):
    given = updates(rows())
    mixed = mix(given, rng())
    if len(mixed) == len(given):
        assert mixed.client_ids == given.client_ids
    else:
        assert all(name < 0 for name in mixed.client_ids)
        assert len(set(mixed.client_ids)) == len(mixed)


def test_the_input_stays_as_it_was(mix):
    given = updates(rows())
    matrix, weights = given.matrix.clone(), given.num_examples.clone()
    mix(given, rng())
    assert torch.equal(given.matrix, matrix)
    assert torch.equal(given.num_examples, weights)


def test_the_same_stream_gives_the_same_bits(mix):
    first, again = (mix(updates(rows()), rng(4)) for _ in range(2))
    assert torch.equal(first.matrix, again.matrix)
    assert torch.equal(first.num_examples, again.num_examples)


def test_global_generators_play_no_part(mix):
    torch.manual_seed(0)
    np.random.seed(0)
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = mix(updates(rows()), rng(4)).matrix
    assert np.array_equal(np.random.get_state()[1], np_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(mix(updates(rows()), rng(4)).matrix, first)


def test_rows_that_agree_still_agree(mix):
    row = rows(1)[0] / 100  # short enough for a clip
    mixed = mix(updates(row.repeat(N, 1)), rng()).matrix
    torch.testing.assert_close(mixed, row.repeat(len(mixed), 1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("d", [1, D])
def test_zero_rows_stay_zero(mix, d):
    mixed = mix(updates(torch.zeros(N, d)), rng()).matrix
    assert torch.equal(mixed, torch.zeros_like(mixed))


def test_no_row_gets_longer_than_the_longest(mix):
    given = updates(rows())
    longest = float(given.matrix.norm(dim=1).max())
    assert float(mix(given, rng()).matrix.norm(dim=1).max()) <= longest * (1 + 1e-6)


@pytest.mark.parametrize("name", [name for name in CHOICES if name not in RANDOM])
@pytest.mark.parametrize("f", [0, 2])
def test_the_order_of_the_clients_is_the_order_of_the_rows(name, f):
    mix, given = parts(name, f)[name], updates(rows())
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        given,
        matrix=given.matrix[order],
        client_ids=tuple(order.tolist()),
        num_examples=given.num_examples[order],
    )
    expected = mix(given, rng()).matrix[order]
    torch.testing.assert_close(mix(shuffled, rng()).matrix, expected, rtol=1e-6, atol=1e-6)


def test_a_single_client_is_passed_on(choice):
    row = rows(1) / 100
    mixed = parts(choice, 0)[choice](updates(row), rng())
    torch.testing.assert_close(mixed.matrix, row)
