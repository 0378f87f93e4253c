"""Rounds as the run's record of updates shows them (`record_updates`), where nobody watched.

The record holds rows and whose they are; the model that a round began with is known where a
checkpoint was kept: of the first round always, and usually of the last.
"""

from __future__ import annotations

import torch

from fedexp.core.checks import InputError
from fedexp.leakage.membership.asked import Asked
from fedexp.leakage.membership.seen import Seen
from fedexp.leakage.victim import Victim
from fedexp.run_folder.update_files import Layout
from fedexp.run_folder.update_folder import batches, find_updates, reader

WATCH = "let it watch: fedexp run ... leakage=server_membership"


def seen_in_record(victim: Victim, asked: Asked) -> dict[int, Seen]:
    """By round, what its rows tell of the examples.

    Raises:
        InputError: no updates were recorded, sums of clients that are not named were, or the models
            that the rounds began with are not there any more.
    """
    if not (victim.folder / "updates" / "index.csv").exists():
        raise InputError(
            f"nobody watched this run for these examples, and it kept no updates; {WATCH}",
            "leakage",
            "server_membership",
        )
    if victim.experiment.channel.sums:
        raise InputError(
            f"the record of updates does not say which clients are in which sum; {WATCH}",
            "channel",
            type(victim.experiment.channel).__name__,
        )
    found = find_updates(victim.folder)
    found.files = [file for file in found.files if (file.round or 0) - 1 in victim.models]
    layout = Layout.of(victim.model).beside(victim.experiment.server.algorithm.sends)
    rows: dict[int, list[torch.Tensor]] = {}
    senders: dict[int, list[list[int]]] = {}
    for batch in batches(found, layout, reader(None)):
        for file, row in zip(batch.files, batch.matrix, strict=True):
            if file.round is not None and file.client is not None and file.client >= 0:
                rows.setdefault(file.round, []).append(row)
                senders.setdefault(file.round, []).append([file.client])
    if not rows:
        raise InputError(
            f"no update was kept of a round whose first model is there (checkpoint_every); {WATCH}",
            "leakage",
            "server_membership",
        )
    return {
        number: Seen.of(
            victim,
            asked,
            victim.models[number - 1],
            torch.stack(of_round),
            senders[number],
            victim.models[number] - victim.models[number - 1] if number in victim.models else None,
        )
        for number, of_round in sorted(rows.items())
    }
