"""What an attack makes of a round's rows and what a channel brings of them, held to form.

Either may be somebody's own: what is more than theirs to change is refused where it was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fedexp.core.capabilities import Remembers, hides_rows, rewritten_by
from fedexp.core.protocols import Attack, Channel
from fedexp.core.types import Delivery, Rule, State, Updates
from fedexp.core.untouched import seen
from fedexp.federation.form import (
    IN_PLACE,
    no_delivery,
    no_rows,
    no_state,
    no_weights,
    refuse_form,
)


def rewritten(
    attack: Attack,
    updates: Updates,
    malicious: Tensor,
    rule: Rule,
    rng: np.random.Generator,
    memory: State,
) -> tuple[Updates, State]:
    """A round's rows as they are sent, and what the attack remembers: mostly nothing.

    Nobody malicious, nothing to ask: what is honest so far is the same under every attack.

    Raises:
        InputError: the attack has changed more than the rows of the malicious clients.
    """
    if not malicious.any():
        return updates, memory
    before = seen(updates.matrix, updates.num_examples, malicious)
    made, memory = rewritten_by(attack, updates, malicious, rule, rng, memory)
    after = seen(updates.matrix, updates.num_examples, malicious)
    wrong = IN_PLACE if after != before else _of_others(made, updates, malicious)
    refuse_form(wrong or no_state(memory, "what it remembers"), "attack", attack)
    # The rest is the record's: how clients say that they trained, and how much.
    return replace(updates, matrix=made.matrix, num_examples=made.num_examples), memory


def _of_others(made: object, updates: Updates, malicious: Tensor) -> str:
    """What an attack has changed that is not the malicious clients' to change; "": nothing."""
    if made is updates:
        return ""
    wrong = no_rows(made, updates.matrix)
    if wrong or not isinstance(made, Updates):
        return wrong
    if wrong := no_weights(made.num_examples, len(updates)):
        return wrong
    there, rows = updates.matrix, made.matrix
    honest = ~malicious
    weights = honest.to(updates.num_examples.device)
    if made.client_ids != updates.client_ids or not torch.equal(
        made.num_examples[weights], updates.num_examples[weights]
    ):
        return "may change the malicious clients' rows, and changed whose they are or their weight"
    for k in honest.nonzero()[:, 0].tolist() if rows is not there else ():
        # As bits: a row of a client whose training diverged is not equal to itself.
        if not torch.equal(rows[k].view(torch.int32), there[k].view(torch.int32)):
            return (
                f"may change the malicious clients' rows, and changed client {made.client_ids[k]}'s"
            )
    return ""


def transmitted(
    channel: Channel, updates: Updates, kept: Sequence[State], rng: np.random.Generator
) -> tuple[Delivery, list[State]]:
    """A round's transport, and what each client keeps of it: mostly nothing.

    Raises:
        InputError: the channel does not say whose rows it delivers, which accounts charge for, or
            has changed what was sent.
    """
    before = seen(updates.matrix, updates.num_examples)
    if isinstance(channel, Remembers):
        delivery, left = channel.carried(updates, kept, rng)
    else:
        delivery, left = channel.transmit(updates, rng), [{} for _ in kept]
    in_place = seen(updates.matrix, updates.num_examples) != before
    refuse_form(IN_PLACE if in_place else no_delivery(delivery, updates), "channel", channel)
    if (channel.sums or hides_rows(channel)) and max(delivery.updates.client_ids, default=-1) >= 0:
        wrong = "says that it hides or sums clients' rows (hides_rows, sums), and delivers one's"
        refuse_form(wrong, "channel", channel)
    if len(left) != len(kept):
        refuse_form(f"must keep something of {len(kept)} clients each", "channel", channel)
    return delivery, left
