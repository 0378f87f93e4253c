"""An attack that says it sees its own clients alone is shown these alone.

Noise on a sum covers one client as long as no other client's row depends on that one: with f
malicious rows computed from the honest ones, one client moves the sum by up to 1 + 2 f clip norms.
A mechanism that counts on 1 must not take an attack's word for it (`sees_other_clients = False`),
so the round loop gets the attack from here, and the word is made true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from fedexp.core.capabilities import sees_other_clients
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.protocols import Attack
from fedexp.core.text import called
from fedexp.core.types import Outcome, Rule, Updates
from fedexp.federation.form import IN_PLACE, no_rows, refuse_form


def held_to_its_word(attack: Attack) -> Attack:
    """The attack as it is where it says nothing, else with nothing but its own clients in sight."""
    return attack if sees_other_clients(attack) else OwnRowsOnly(attack)


@final
@dataclass(frozen=True)
class OwnRowsOnly:
    """An attack that is shown the malicious rows as if nobody else had answered."""

    sees_other_clients: ClassVar[bool] = False

    attack: Attack

    def poison(self, data: Split, rng: np.random.Generator) -> Split:
        """As the attack inside, which is handed one client's data at a time."""
        return self.attack.poison(data, rng)

    def targeted_examples(self, data: Split) -> Split:
        """As the attack inside."""
        return self.attack.targeted_examples(data)

    def rewrite(
        self, updates: Updates, malicious: Tensor, rule: Rule, rng: np.random.Generator
    ) -> Updates:
        """New updates with what the attack makes of the malicious rows.

        Raises:
            InputError: it asks what the rule would make of a round that it does not see.
        """
        if not malicious.any():
            return updates
        own = updates.select(malicious)
        before = own.matrix._version
        crafted = self.attack.rewrite(own, malicious[malicious], _Unseen(self.attack), rng)
        in_place = own.matrix._version != before  # which would be lost
        refuse_form(IN_PLACE if in_place else no_rows(crafted, own.matrix), "attack", self.attack)
        if crafted is own:
            return updates
        matrix = updates.matrix.clone()
        matrix[malicious] = crafted.matrix
        return updates.with_matrix(matrix)


@final
@dataclass(frozen=True)
class _Unseen:
    """The server of a round that the attack does not see."""

    attack: Attack

    def __call__(self, rows: Tensor) -> Tensor:
        raise self._refusal()

    def outcome(self, rows: Tensor) -> Outcome:
        raise self._refusal()

    def _refusal(self) -> InputError:
        return InputError(
            "says that it sees no other clients (sees_other_clients), and asks the rule about them",
            "attack",
            called(self.attack),
        )
