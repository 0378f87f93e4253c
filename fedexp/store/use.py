"""Which store is in use here and now; a study deep in a run needs not be handed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from fedexp.core.checks import InputError
from fedexp.store.entries import Kept, Nowhere, Store

BESIDE_THE_RUNS = Path("outputs", "store")
"""Below the current folder; a home folder may be bare, or not be there."""

_in_use: ContextVar[Kept] = ContextVar("store")


def in_use() -> Kept:
    """The store to ask, and to leave things with."""
    return _in_use.get(Nowhere())


@contextmanager
def using(store: Kept) -> Iterator[None]:
    """Have `store` used in this context."""
    token = _in_use.set(store)
    try:
        yield
    finally:
        _in_use.reset(token)


def named(store: str, one_of_many: bool) -> Kept:
    """What `store=auto|none|FOLDER` means.

    Args:
        store: the key's value.
        one_of_many: whether a job of a sweep asks: `auto` keeps what these compute. A run by itself
            is computed when it is asked for.

    Raises:
        InputError: it names a file.
    """
    if store == "none" or (store == "auto" and not one_of_many):
        return Nowhere()
    folder = BESIDE_THE_RUNS if store == "auto" else Path(store).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file, not a folder; auto, none or a folder", "store", store)
    return Store(folder.absolute())
