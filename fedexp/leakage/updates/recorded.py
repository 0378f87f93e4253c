"""The updates that a run recorded (`record_updates`), as the server saw them, ready to be attacked.

Nothing is re-enacted: these are the rows that clients with few examples sent in the run itself, of
those whose every step took all of their examples or, if asked for, of those who went through theirs
in whole epochs of equal minibatches: which examples a step was on is nobody's to know. An
adversary needs the model that the round began with, so a round can be attacked if the checkpoint
before it is there: the first always, and usually the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least
from fedexp.core.protocols import Trainer
from fedexp.leakage.updates.exposure import (
    Exposed,
    knowledge_of,
    observed,
    readable,
    refuse_corrected_steps,
    refuse_running_statistics,
)
from fedexp.leakage.victim import Victim
from fedexp.run_folder.update_files import Layout
from fedexp.run_folder.update_folder import batches, find_updates, reader
from fedexp.training.steps import NoisySteps


@final
@dataclass(frozen=True)
class RecordedUpdates:
    """Updates from the run's own record, of clients that hold few examples.

    Args:
        rounds: whose updates, from 1: "first", "last", or numbers.
        examples: that are behind the updates attacked of each round, at most.
        largest_client: examples of a client above which its update is left alone.
        labels_shared: whether the adversary is told the labels.
        minibatches: take updates of whole epochs of minibatches too, for an attack that knows what
            to do with them.
    """

    about: ClassVar[str] = "The updates are the run's own, of clients with few examples."

    rounds: Sequence[str | int]
    examples: int
    largest_client: int
    labels_shared: bool
    minibatches: bool = False  # as in studies of the time before there was such a key

    def __post_init__(self) -> None:
        at_least(1, examples=self.examples, largest_client=self.largest_client)
        if not self.rounds:
            raise InputError("names no round", "rounds", list(self.rounds))

    def __call__(self, victim: Victim) -> list[Exposed]:
        """The observations; a round's model is that of the round before.

        Raises:
            InputError: nothing was recorded, or nothing that can be attacked.
        """
        refuse_running_statistics(victim.model)
        if victim.experiment.channel.sums:
            raise InputError(
                "the run recorded sums over clients, not their updates; leave them to an exposure",
                "channel",
                type(victim.experiment.channel).__name__,
            )
        refuse_corrected_steps(victim)
        wanted = [self._round(name, victim) for name in self.rounds]
        sizes = [len(shard) for shard in victim.partition.shards]
        if min(sizes) > self.largest_client:
            raise InputError(
                f"the smallest client holds {min(sizes)} examples: too many to take apart",
                "largest_client",
                self.largest_client,
            )
        found = find_updates(victim.folder)
        found.files = [file for file in found.files if file.round in wanted]
        model = Layout.of(victim.model)
        layout = model.beside(victim.experiment.server.algorithm.sends)
        exposed, in_minibatches = dict.fromkeys(wanted, 0), 0
        trainer = victim.experiment.trainer
        plain = readable(trainer)
        attacked: list[Exposed] = []
        for batch in batches(found, layout, reader(None)):
            for file, row in zip(batch.files, batch.matrix, strict=True):
                if file.client is None or file.round is None or file.malicious:
                    continue
                n = sizes[file.client]
                minibatch = plain.largest_batch(n) if plain.largest_batch(n) < n else None
                if minibatch is not None and not self._takes(trainer, n, minibatch):
                    in_minibatches += 1
                    continue
                if n > self.largest_client or exposed[file.round] + n > self.examples:
                    continue
                exposed[file.round] += n
                attacked.append(
                    self._observed(row[: model.d], file.client, file.round, victim, minibatch)
                )
        if not attacked and in_minibatches:
            raise InputError(
                f"{in_minibatches} updates are of steps on a part of the client's examples each, "
                "and the adversary would have to know which; study a run with batches of all "
                "(training.batch_size=null), leave the updates to an exposure, or set "
                "minibatches=true for leakage=epochs (whole epochs of equal batches, no DP-SGD)",
                "training.batch_size",
                victim.config["training"].get("batch_size"),
            )
        if not attacked:
            raise InputError("no update of these rounds can be attacked", "rounds", self.rounds)
        return attacked

    def _takes(self, trainer: Trainer, n: int, minibatch: int) -> bool:
        """Whether the steps of a client with n examples are known to be whole epochs."""
        # Where batches are not equal, who leaves out the last one has other steps.
        steps = readable(trainer).steps_for(n)
        return (
            self.minibatches
            and not isinstance(trainer, NoisySteps)
            and n % minibatch == 0
            and steps % (n // minibatch) == 0
        )

    def _round(self, name: str | int, victim: Victim) -> int:
        number = {"first": 1, "last": victim.last_round}.get(str(name), name)
        there = sorted(r + 1 for r in victim.models if r < victim.last_round)
        if number not in there:
            raise InputError(
                f"the model sent out is known for rounds {', '.join(map(str, there))}",
                "rounds",
                name,
            )
        return int(number)

    def _observed(
        self, row: Tensor, client: int, round: int, victim: Victim, minibatch: int | None
    ) -> Exposed:
        truth = victim.pixels.train.rows(torch.from_numpy(victim.partition.shards[client]))
        trainer, sent_out = victim.experiment.trainer, round - 1
        knowledge = knowledge_of(victim, sent_out, trainer, truth, self.labels_shared, minibatch)
        return Exposed(observed(victim, row, 1, knowledge), truth, round)
