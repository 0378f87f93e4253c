"""What a user may ask for: checks whose messages name the key, its value and what is allowed.

Every refusal in fedexp is an `InputError`. A component raises it with the name of its own argument
(`lr=-1`); the builder puts the config group in front (`training.lr=-1`); the command line prints
the one line and ends with exit code 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

LARGEST = 2**63 - 1  # of the whole numbers that NumPy and torch count with


class InputError(ValueError):
    """Something a user gave cannot be used. The message is one line that stands on its own.

    Args:
        reason: what is wrong and what would be right.
        key: the config key or argument the reason is about, if there is one.
        value: the value that was given for `key`.

    >>> print(InputError("must be above 0", key="lr", value=-1).under("training"))
    training.lr=-1: must be above 0
    """

    def __init__(self, reason: str, key: str | None = None, value: object = None) -> None:
        self.reason, self.key, self.value = reason, key, value
        said = "null" if value is None else value  # as it is written in a config
        super().__init__(reason if key is None else f"{key}={said}: {reason}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str | None, object]]:
        # Exceptions cross process borders; the default would rebuild this one from its message.
        return type(self), (self.reason, self.key, self.value)

    def under(self, group: str) -> InputError:
        """The same error with the config group in front of its key."""
        return (
            self if self.key is None else type(self)(self.reason, f"{group}.{self.key}", self.value)
        )


class NotThere(InputError):
    """A file that a run is made of is missing, which says nothing of what was in it."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def positive(**arguments: float) -> None:
    """Refuse numbers that are not finite and above 0.

    >>> positive(lr=0.1)
    >>> positive(lr=float("nan"))
    Traceback (most recent call last):
    fedexp.core.checks.InputError: lr=nan: must be a finite number above 0
    """
    for name, value in arguments.items():
        if not (_is_number(value) and math.isfinite(value) and value > 0):
            raise InputError("must be a finite number above 0", name, value)


def non_negative(**arguments: float) -> None:
    """Refuse numbers that are not finite and at least 0."""
    for name, value in arguments.items():
        if not (_is_number(value) and math.isfinite(value) and value >= 0):
            raise InputError("must be a finite number, 0 or above", name, value)


def at_least(low: int, /, **arguments: int) -> None:
    """Refuse whole numbers below `low`, and those that 64 bits do not hold.

    >>> at_least(1, n_clients=0)
    Traceback (most recent call last):
    fedexp.core.checks.InputError: n_clients=0: must be a whole number, 1 or above
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"must be a whole number, {low} or above", name, value)
        if value > LARGEST:
            raise InputError("must be below 2**63", name, value)


def in_range(low: float, high: float, /, **arguments: float) -> None:
    """Refuse numbers outside the closed interval [low, high].

    >>> in_range(0, 1, fraction=1.1)
    Traceback (most recent call last):
    fedexp.core.checks.InputError: fraction=1.1: must lie between 0 and 1
    """
    for name, value in arguments.items():
        if not (_is_number(value) and low <= value <= high):
            raise InputError(f"must lie between {low:g} and {high:g}", name, value)


def one_of(choices: Iterable[str], /, **arguments: str) -> None:
    """Refuse words that are not among `choices`, and suggest the nearest one.

    >>> one_of(["examples", "uniform"], weighting="unifrom")
    Traceback (most recent call last):
    fedexp.core.checks.InputError: weighting=unifrom: did you mean uniform? Allowed: ...
    """
    for name, value in arguments.items():
        allowed = list(choices)
        if value not in allowed:
            raise InputError(
                f"{did_you_mean(value, allowed)}Allowed: {', '.join(allowed)}", name, value
            )


def refuse_majority(n: int, assumed_malicious: int) -> None:
    """Refuse where half or more of the `n` clients that answered may lie: no rule could hold."""
    if 2 * assumed_malicious >= n and assumed_malicious > 0:
        raise InputError(
            f"needs more than 2 x {assumed_malicious} clients, but {n} are in the round",
            "assumed_malicious",
            assumed_malicious,
        )


def refuse_no_folder(path: Path, key: str) -> None:
    """Raise InputError unless `path` is a folder, by what is there in its place.

    >>> refuse_no_folder(Path("/dev/null"), "RUN_DIR")
    Traceback (most recent call last):
    fedexp.core.checks.InputError: RUN_DIR=/dev/null: is a file, not a folder
    """
    if not path.is_dir():
        reason = "is a file, not a folder" if path.exists() else "there is no such folder"
        raise InputError(reason, key, path)


def of_its_own(error: Exception) -> str:
    """An error of somebody's own code, in a line.

    >>> of_its_own(KeyError("rows"))
    "KeyError: 'rows'"
    """
    return f"{type(error).__name__}: {(str(error) or 'no words').splitlines()[0]}"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A question that suggests the choice nearest to `word`; empty when none is near.

    >>> did_you_mean("mediam", ["mean", "median"])
    'did you mean median? '
    """
    near = get_close_matches(str(word), list(choices), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""
