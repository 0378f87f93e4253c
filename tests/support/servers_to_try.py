"""A server that an attack may try out, with nothing behind it."""

from fedexp.core.types import Outcome


class MeanOfRows:
    """The mean of the rows; to the adversary's mind a long step is a bad one."""

    def __call__(self, rows):
        return rows.mean(dim=0)

    def outcome(self, rows):
        return Outcome(self(rows), float(self(rows).norm()))
