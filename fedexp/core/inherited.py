"""Whether a promise is inherited by code that is other than what the promise was made of.

Who takes over a class and changes how it works inherits also what it says of itself. What is said
was true of the methods that stood beside it, and has to be said again of others. A method that is
new counts where parts of any group may have it, and are asked for it (`carried`): it works in the
place of another. So does one that an object has of its own, and whatever is said by another object,
to which a wrapper hands on what it is asked (`__getattr__`).
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache, cached_property

from fedexp.core import capabilities, protection, protocols
from fedexp.core.checks import InputError
from fedexp.core.text import called

LOOKS_UP = ("__getattr__", "__getattribute__")


def refuse_inherited(group: str, part: object, promise: str) -> None:
    """Raise InputError for a promise that other code inherits than it was made of."""
    if changed := changed_below(part, promise):
        raise InputError(
            f"inherits its promise ({promise}) from a class of which it changes "
            f"{', '.join(changed)}: what is said there is not said of this; say it anew "
            f"({promise}), or do not inherit it",
            group,
            called(part),
        )


def changed_below(part: object, promise: str) -> tuple[str, ...]:
    """What `part` has other than the class that says `promise`, by name; (): nothing.

    >>> class Hides:
    ...     hides = True
    ...     def send(self): ...
    >>> class Renamed(Hides): ...
    >>> class Other(Hides):
    ...     def send(self): ...
    >>> class SaidAgain(Other):
    ...     hides = True
    >>> [changed_below(kind(), "hides") for kind in (Hides, Renamed, Other, SaidAgain)]
    [(), (), ('send',), ()]
    """
    own, lineage = getattr(part, "__dict__", {}), type(part).__mro__
    if promise in own:
        return ()
    said_by = next((k for k, kind in enumerate(lineage) if promise in vars(kind)), len(lineage) - 1)
    before = lineage[said_by]
    arguments = {f.name for f in fields(before)} if is_dataclass(before) else set()
    below = {name for kind in lineage[:said_by] for name in vars(kind)}
    of_its_own = {name for name in own if callable(own[name]) and not _kept(before, name)}
    return tuple(
        sorted(
            name
            for name in below | of_its_own
            if (hasattr(before, name) or name in _asked_for() or name in LOOKS_UP)
            and name not in arguments
            and not _of_every_class(name)
        )
    )


def _kept(kind: type, name: str) -> bool:
    """Whether an object's own attribute is an answer that its class keeps there."""
    return isinstance(getattr(kind, name, None), cached_property)


@cache
def _asked_for() -> frozenset[str]:
    """What parts may have, and are asked for where they have it."""
    return frozenset(
        name
        for module in (capabilities, protection, protocols)
        for kind in vars(module).values()
        if getattr(kind, "_is_protocol", False)
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    )


def _of_every_class(name: str) -> bool:
    """Whether Python or `dataclass` writes it; what checks arguments is somebody's own."""
    return name.startswith("__") and name not in ("__post_init__", *LOOKS_UP)
