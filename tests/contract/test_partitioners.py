"""What every partition of conf/partition must keep, whatever it does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.core.checks import InputError
from fedexp.core.examples import Split

CONF = Path(__file__).parents[2] / "conf" / "partition"
CONFIGS = sorted(CONF.glob("*.yaml"))
N_ROWS, N_CLIENTS = 1203, 11


DRAW_NOTHING = ("site", "site_or_skew", "file")


@pytest.fixture
def train():
    return rows_from(N_CLIENTS)


def rows_from(n_sites):
    """The rows, from so many sites."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N_ROWS, 1, 8, 8, generator=generator)
    y = torch.randint(0, 10, (N_ROWS,), generator=generator)
    return Split(x, y, site=torch.arange(N_ROWS) % n_sites)


def told(choice, n_clients, folder):
    """Keys with which a choice makes so many clients of `rows_from(n_clients)`."""
    if choice == "sizes":
        return {"sizes": [k % 7 + 1 for k in range(n_clients)]}
    if choice == "file":
        path = folder / f"{n_clients}.json"
        path.write_text(json.dumps([list(range(k, 900, n_clients)) for k in range(n_clients)]))
        return {"path": str(path)}
    if choice == "within_sites":
        return {"clients_per_site": 1, "inner": OmegaConf.load(CONF / "quantity.yaml")}
    if choice == "site_or_skew":
        return {"skew": OmegaConf.load(CONF / "quantity.yaml")}
    return {}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def choice(request):
    return request.param.stem


@pytest.fixture
def making(choice, tmp_path):
    """From a number of clients to the choice's partitioner."""

    def make(n_clients):
        loaded = OmegaConf.load(CONF / f"{choice}.yaml")
        node = OmegaConf.merge(loaded, told(choice, n_clients, tmp_path))
        builders = ("n_clients", "defaults")
        return instantiate({k: node[k] for k in node if k not in builders}, _convert_="all")

    return make


@pytest.fixture
def partitioner(making):
    return making(N_CLIENTS)


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
def test_shards_are_sorted_int64_disjoint_and_not_empty(making, n_clients):
    train = rows_from(n_clients)
    shards = making(n_clients)(train, n_clients, np.random.default_rng(0)).shards
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


def test_same_seed_same_deal_other_seed_other_deal(choice, partitioner, train):
    first, again, other = (
        partitioner(train, N_CLIENTS, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert rows(first.shards) == rows(again.shards)
    assert torch.equal(first.train.x, again.train.x)
    # Where a site is one client only, nothing is left to the draw within it either.
    drawn = choice not in (*DRAW_NOTHING, "within_sites")
    assert (rows(first.shards) != rows(other.shards)) == drawn


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


def test_what_is_known_of_clients_is_known_of_all(partitioner, train):
    partition = partitioner(train, N_CLIENTS, np.random.default_rng(0))
    assert len(partition.names) in (0, N_CLIENTS)
    assert len(set(partition.names)) == len(partition.names)
    if partition.own is not None:
        own = partition.own(train, "test")
        assert len(own.rows) == N_CLIENTS
        assert len(own.part) == N_ROWS
        assert all(r.dtype == np.int64 and (np.diff(r) > 0).all() for r in own.rows)


def test_no_clients_are_refused(partitioner, train):
    with pytest.raises(InputError, match="n_clients=0"):
        partitioner(train, 0, np.random.default_rng(0))
