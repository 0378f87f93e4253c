"""Small finished runs to attack, made by the command itself."""

from fedexp.commands.cli import run_command
from fedexp.leakage.victim import open_victim

SMALL = ("rounds=2", "training.epochs=1", "quiet=true", "plots=false", "partition=iid")


def finished_run(folder, *overrides):
    """A run of digits in `folder`, unless the overrides say otherwise."""
    assert run_command(["run", *SMALL, *overrides, f"hydra.run.dir={folder}"]) == 0
    return folder


def victim_of_run(folder, *overrides):
    """The same, opened."""
    return open_victim(finished_run(folder, *overrides), None)
