"""Whether a promise is inherited by code that is other than what the promise was made of.

Who takes over a class and changes how it works inherits also what it says of itself. What is said
was true of the methods that stood beside it, and has to be said again of others.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass


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
    lineage = type(part).__mro__
    said_by = next((k for k, kind in enumerate(lineage) if promise in vars(kind)), 0)
    before = lineage[said_by]
    arguments = {f.name for f in fields(before)} if is_dataclass(before) else set()
    return tuple(
        sorted(
            name
            for kind in lineage[:said_by]
            for name in vars(kind)
            if hasattr(before, name) and name not in arguments and not _of_every_class(name)
        )
    )


def _of_every_class(name: str) -> bool:
    """Whether Python or `dataclass` writes it; what checks arguments is somebody's own."""
    return name.startswith("__") and name != "__post_init__"
