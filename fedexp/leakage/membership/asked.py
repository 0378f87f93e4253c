"""Which examples the server asks about, of which client, and what makes the question a fair one.

Every member has a counterpart: an example of its class that nobody trained on, asked of the same
client. So members and non-members of a client have one mix of classes, and whoever tells them apart
has not merely read off which classes the client holds. Beside that, the same non-members are asked
of clients drawn by lot (`by_lot`), as is usual; where clients hold other classes than each other,
that is the easier question.

Members of clients that the adversary controls are not asked about: these send what they like, and
have nothing to keep from it.

`wrong` is the control: another client than the one that holds the member, for both of a pair.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.rng import generator
from fedexp.core.shards import are_listed
from fedexp.leakage.membership.pool import refuse_no_clean_answer
from fedexp.leakage.victim import Victim


@final
@dataclass(frozen=True)
class Asked:
    """m members and their m counterparts, in the same order.

    Attributes:
        examples: `[2m]`, members first, in their own unit.
        client: `[2m]` int64, whom each is asked of: who holds it, or its counterpart.
        n_clients: of the federation.
        seed: of the draws.
    """

    examples: Split
    client: np.ndarray
    n_clients: int
    seed: int

    @classmethod
    def of(cls, victim: Victim, most_members: int) -> Asked:
        """Members drawn from all honest clients, each with an example of its class from `held_out`.

        Raises:
            InputError: the question has no clean answer in this run, or there are no such pairs.
        """
        refuse_no_clean_answer(victim)
        if not are_listed(victim.partition.shards):
            raise InputError(
                "are too many to be gone through one by one",
                "n_clients",
                victim.config["n_clients"],
            )
        train, others = victim.pixels.train, victim.held_out
        holder = np.full(len(train), -1)
        for client, shard in enumerate(victim.partition.shards):
            holder[shard] = client
        for malicious in np.flatnonzero(victim.experiment.malicious).tolist():
            holder[victim.partition.shards[malicious]] = -1
        held = np.flatnonzero(holder >= 0)
        drawn = generator(victim.seed, "asked_members").permutation(held)[:most_members]
        order = generator(victim.seed, "asked_others").permutation(len(others))
        labels, answers = train.y.numpy(), others.y.numpy()[order]
        members, counterparts = [], []
        for c in np.unique(labels[drawn]):
            of_class, like_them = drawn[labels[drawn] == c], order[answers == c]
            pairs = min(len(of_class), len(like_them))
            members.append(of_class[:pairs])
            counterparts.append(like_them[:pairs])
        inside, outside = np.concatenate(members), np.concatenate(counterparts)
        if not len(inside):
            raise InputError(
                "there is no example of the members' classes that nobody trained on; "
                "train_examples leaves some",
                "train_examples",
                victim.config["train_examples"],
            )
        return cls(
            examples=train.rows(torch.from_numpy(inside)).joined(
                others.rows(torch.from_numpy(outside))
            ),
            client=np.concatenate([holder[inside]] * 2),
            n_clients=len(victim.partition.shards),
            seed=victim.seed,
        )

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def pairs(self) -> int:
        """How many there are: m."""
        return len(self.client) // 2

    @property
    def is_member(self) -> np.ndarray:
        """`[2m]` bool, the truth."""
        return np.arange(len(self.client)) < self.pairs

    @cached_property
    def by_lot(self) -> np.ndarray:
        """`[2m]` whom each is asked of where the classes of clients are not looked at."""
        holders = self.client[: self.pairs]
        shuffled = generator(self.seed, "asked_by_lot").permutation(holders)
        return np.concatenate([holders, shuffled])

    @cached_property
    def wrong(self) -> np.ndarray:
        """`[2m]` a client that holds neither of the pair, the same for both."""
        steps = generator(self.seed, "asked_wrong").integers(1, self.n_clients, self.pairs)
        return np.concatenate([(self.client[: self.pairs] + steps) % self.n_clients] * 2)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the examples and of whom they are asked of."""
        whole = hashlib.sha256(self.examples.x.contiguous().numpy().tobytes())
        whole.update(self.examples.y.numpy().tobytes() + self.client.astype(np.int64).tobytes())
        return whole.hexdigest()
