"""Who takes part, and which examples each of them holds: before anybody changes any of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedexp.config.adversary import malicious_clients
from fedexp.config.construction import Chosen
from fedexp.config.parts import Config, prefixed
from fedexp.core.checks import InputError, of_its_own
from fedexp.core.examples import Dataset
from fedexp.core.partition import Partition
from fedexp.core.protocols import OfDataset
from fedexp.core.rng import generator
from fedexp.core.shards import are_listed
from fedexp.core.untouched import seen
from fedexp.federation.extra_clients import with_extra_clients
from fedexp.partition.check import checked


@dataclass(frozen=True)
class Clients:
    """Who takes part, and who holds what."""

    partition: Partition  # over the config's n_clients, without what the server keeps
    whole: Partition  # the same with the malicious clients that come on top
    malicious: np.ndarray  # [everybody] bool: whom the adversary controls
    root_rows: np.ndarray  # [root_examples] int64 rows of `train` that the server keeps


def partitioned(config: Config, chosen: Chosen, dataset: Dataset) -> Partition:
    """The training part, dealt out to `n_clients`; InputError where that cannot be."""
    n_clients, partitioner = config["n_clients"], chosen.partitioner
    name = type(partitioner).__name__
    with prefixed("partition"):
        try:
            if isinstance(partitioner, OfDataset):
                partitioner = partitioner.of(dataset)
            rng = generator(config["seed"], "partition")
            before = seen(dataset.train.y), dataset.train.x._version
            partition = partitioner(dataset.train, n_clients, rng)
        except InputError:
            raise
        except Exception as error:  # of a partition of somebody's own
            reason = f"cannot deal {len(dataset.train)} examples to {n_clients} clients"
            raise InputError(f"{reason}: {of_its_own(error)}", "partition", name) from error
    if (seen(dataset.train.y), dataset.train.x._version) != before:
        reason = "changes the examples that it is given: return others (dataclasses.replace)"
        raise InputError(reason, "partition", name)
    return checked(partition, dataset.train, n_clients, name)


def clients_of(config: Config, partition: Partition, everybody: int, root_examples: int) -> Clients:
    """Take from a partition what the server keeps, and add who comes on top.

    Args:
        config: resolved.
        partition: over the config's `n_clients`.
        everybody: how many clients there are, with the malicious ones that come on top.
        root_examples: that the server keeps.

    Raises:
        InputError: there are not enough examples, or too many clients to be listed.
    """
    n_clients, seed = config["n_clients"], config["seed"]
    on_top = everybody - n_clients
    partition, root_rows = _without_root_data(partition, root_examples, seed)
    _refuse_lists(partition, config, n_clients, on_top)
    whole = with_extra_clients(partition, on_top, seed)
    malicious = malicious_clients(config, n_clients, on_top)
    return Clients(partition, whole, malicious, root_rows)


def _without_root_data(
    partition: Partition, wanted: int, seed: int
) -> tuple[Partition, np.ndarray]:
    """The partition without the examples that the server keeps, and their rows in `train`.

    They are taken from the clients, so that a rule with root data has no more of the training part
    than its rivals, and the validation part is everybody's. No client loses its last example.
    """
    if not wanted:
        return partition, np.empty(0, dtype=np.int64)
    if not are_listed(partition.shards):
        n_clients = len(partition.shards)
        raise InputError(
            f"are taken from the clients one by one, and {n_clients:,} are too many to be listed",
            "aggregator.root_examples",
            wanted,
        )
    left = np.array([len(shard) for shard in partition.shards])
    holder = np.repeat(np.arange(len(left)), left)
    held = np.concatenate(partition.shards)
    root: list[int] = []
    for place in generator(seed, "root").permutation(len(held)):
        if len(root) == wanted:
            break
        if left[holder[place]] > 1:
            left[holder[place]] -= 1
            root.append(int(held[place]))
    if len(root) < wanted:
        raise InputError(
            f"the clients can give {len(root)} of their {len(held)} examples and keep one each",
            "aggregator.root_examples",
            wanted,
        )
    shards = tuple(np.setdiff1d(shard, root, assume_unique=True) for shard in partition.shards)
    return replace(partition, shards=shards), np.array(sorted(root), dtype=np.int64)


def _refuse_lists(partition: Partition, config: Config, n_clients: int, on_top: int) -> None:
    """Refuse what goes through all clients one by one, where they are too many to be listed."""
    if are_listed(partition.shards):
        return
    wants = {
        "verdict": (config["verdict"], "trains and judges a model for every client"),
        "attack.extra_clients": (on_top, "copies examples of every client"),
    }
    for key, (wanted, reason) in wants.items():
        if wanted:
            raise InputError(f"{reason}, and {n_clients:,} are too many to be listed", key, True)
