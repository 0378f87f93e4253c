"""No attack: every client is honest, whatever the mask says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from fedexp.attacks.base import LeavesData, LeavesRows


@final
@dataclass(frozen=True)
class NoAttack(LeavesData, LeavesRows):
    """Data and rows unchanged."""

    does_nothing: ClassVar[bool] = True
    sees_other_clients: ClassVar[bool] = False
