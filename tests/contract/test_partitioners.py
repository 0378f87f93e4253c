"""What every partition of conf/partition must keep, whatever it does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.core.checks import InputError
from fedexp.core.types import Split

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "partition").glob("*.yaml"))
N_ROWS, N_CLIENTS = 1203, 11


@pytest.fixture
def train():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N_ROWS, 1, 8, 8, generator=generator)
    return Split(x, torch.randint(0, 10, (N_ROWS,), generator=generator))


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def partitioner(request):
    return instantiate(OmegaConf.load(request.param))


def rows(shards):
    return [shard.tolist() for shard in shards]


def test_the_configs_were_found():
    assert {path.stem for path in CONFIGS} >= {
        "classes",
        "dirichlet",
        "dirichlet_balanced",
        "feature",
        "iid",
        "quantity",
        "shards",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_first_line_describes_the_choice(path):
    line = path.read_text().splitlines()[0]
    assert line.startswith("# ")
    assert line[2].isupper()
    assert len(line) < 92
    assert not line.endswith(".")


@pytest.mark.parametrize("n_clients", [1, 2, N_CLIENTS, 50])
def test_shards_are_sorted_int64_disjoint_and_not_empty(partitioner, train, n_clients):
    shards = partitioner(train, n_clients, np.random.default_rng(0)).shards
    assert isinstance(shards, tuple)
    assert len(shards) == n_clients
    for shard in shards:
        assert shard.dtype == np.int64
        assert shard.ndim == 1
        assert len(shard) > 0
        assert (np.diff(shard) > 0).all()
    dealt = np.concatenate(shards)
    assert len(np.unique(dealt)) == len(dealt)
    assert dealt.min() >= 0
    assert dealt.max() < N_ROWS


def test_same_seed_same_deal_other_seed_other_deal(partitioner, train):
    first, again, other = (
        partitioner(train, N_CLIENTS, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert rows(first.shards) == rows(again.shards)
    assert torch.equal(first.train.x, again.train.x)
    assert rows(first.shards) != rows(other.shards)


def test_the_global_generators_play_no_part(partitioner, train):
    np.random.seed(0)
    torch.manual_seed(0)
    first = partitioner(train, N_CLIENTS, np.random.default_rng(1))
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    again = partitioner(train, N_CLIENTS, np.random.default_rng(1))
    assert rows(first.shards) == rows(again.shards)
    assert np.array_equal(np_state, np.random.get_state()[1])
    assert torch.equal(torch_state, torch.get_rng_state())


def test_the_training_part_is_left_as_it_was(partitioner, train):
    x, y = train.x.clone(), train.y.clone()
    partition = partitioner(train, N_CLIENTS, np.random.default_rng(0))
    assert torch.equal(train.x, x)
    assert torch.equal(train.y, y)
    assert torch.equal(partition.train.y, y)
    assert partition.train.x.shape == x.shape


def test_more_clients_than_examples_are_refused(partitioner, train):
    with pytest.raises(InputError) as caught:
        partitioner(train, N_ROWS + 1, np.random.default_rng(0))
    assert caught.value.key == "n_clients"
    assert str(N_ROWS) in str(caught.value)


def test_no_clients_are_refused(partitioner, train):
    with pytest.raises(InputError, match="n_clients=0"):
        partitioner(train, 0, np.random.default_rng(0))
