"""`hydra/launcher=workers`, where Hydra looks for launchers: in this namespace and nowhere else."""

from fedexp.commands.workers import SideBySide


class Workers(SideBySide):
    """See `fedexp.commands.workers`."""
