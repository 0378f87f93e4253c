"""What workers are handed: the model, the examples that clients train on, and who holds which.

train      the training part, as the clients train on it
shards     the clients' rows of it; then the server's root data; then, where some rounds have no
attack, the malicious clients' own data once more, as they are without it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedexp.config.clients import Clients
from fedexp.core.perturbation import examples_trained_on
from fedexp.core.protection import Mechanism
from fedexp.core.protocols import Trainer
from fedexp.core.types import Split
from fedexp.core.workload import Workload
from fedexp.federation.root import NoRootData, RootData
from fedexp.federation.unpoisoned import with_own_data


@dataclass(frozen=True)
class Held:
    """What stands behind the clients' shards."""

    workload: Workload
    root: NoRootData | RootData
    unpoisoned: Mapping[int, int]  # malicious client -> its shard in rounds without an attack


def clients_examples(clients: Clients, train: Split, mechanism: Mechanism, seed: int) -> Split:
    """The training part as a mechanism has the clients change it before they train.

    What the adversary wrote, it does not perturb.

    Args:
        clients: who hold it.
        train: the part, with the adversary's examples in it; or as it is without them.
        mechanism: of the run.
        seed: of the run.
    """
    of_the_adversary = clients.malicious & (train is not clients.everybody.train)
    return examples_trained_on(mechanism, train, clients.everybody.shards, of_the_adversary, seed)


def with_shards_behind(
    workload: Workload,
    clients: Clients,
    trainer: Trainer,
    without_attack: Split | None,
) -> Held:
    """Add the server's examples, and those of rounds without an attack.

    Args:
        workload: of the clients.
        clients: whose data they are.
        trainer: as the clients' without what protects theirs, for the server.
        without_attack: the training part as it is trained on then; None: it is the same.
    """
    root: NoRootData | RootData = NoRootData()
    if len(clients.root_rows):
        root = RootData(len(workload.shards), trainer)
        workload = replace(workload, shards=(*workload.shards, clients.root_rows))
    if without_attack is None:
        return Held(workload, root, {})
    shards, n_shards = clients.everybody.shards, len(workload.shards)
    train, again, places = with_own_data(workload.train, without_attack, shards, clients.malicious)
    unpoisoned = {client: n_shards + i for client, i in places.items()}
    workload = replace(workload, train=train, shards=(*workload.shards, *again))
    return Held(workload, root, unpoisoned)
