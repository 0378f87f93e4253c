"""What most parts leave empty: a state that is carried from round to round."""

from __future__ import annotations

from fedexp.core.types import State


class Stateless:
    """A part whose answer depends on this round alone."""

    def init(self, d: int) -> State:
        """No state."""
        return {}
