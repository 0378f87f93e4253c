"""What the key `plots` asks for: whether a run is drawn, as which files, and for which reader.

    plots: true | false, or
    plots: {draw: true, format: png | pdf | svg, style: screen | paper}

Both forms are in saved runs, and `plots=false` on a command line is the short one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import final

from fedexp.core.checks import InputError, did_you_mean, one_of

FORMATS = ("png", "pdf", "svg")
STYLES = ("screen", "paper")


@final
@dataclass(frozen=True)
class Plots:
    """How pictures are drawn.

    Attributes:
        draw: whether there are any.
        format: "pdf" or "svg" stand beside the PNGs, which reports show.
        style: "paper" is as wide as a column, in letters that can be read there, without a heading.

    >>> Plots.of(False).draw, Plots.of({"style": "paper"}).also, Plots.of({"format": "pdf"}).also
    (False, (), ('pdf',))
    """

    draw: bool = True
    format: str = "png"
    style: str = "screen"

    def __post_init__(self) -> None:
        if not isinstance(self.draw, bool):
            raise InputError("must be true or false", "plots.draw", self.draw)
        one_of(FORMATS, **{"plots.format": self.format})
        one_of(STYLES, **{"plots.style": self.style})

    @classmethod
    def of(cls, value: object) -> Plots:
        """What a config says.

        Raises:
            InputError: it is neither form.
        """
        if isinstance(value, bool):
            return cls(draw=value)
        known = [key.name for key in fields(cls)]
        if not isinstance(value, Mapping):
            reason = f"must be true, false, or a mapping of {', '.join(known)}"
            raise InputError(reason, "plots", value)
        for key in value:
            if key not in known:
                suggestion = did_you_mean(str(key), known)
                reason = f"there is no such key; {suggestion}Known: {', '.join(known)}"
                raise InputError(reason, f"plots.{key}", value[key])
        return cls(**value)

    @property
    def also(self) -> tuple[str, ...]:
        """The formats beside PNG."""
        return tuple(kind for kind in FORMATS[1:] if kind == self.format)
