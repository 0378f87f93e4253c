"""Letters that a picture can show.

matplotlib's own font has Latin, Greek, Cyrillic, Arabic and Hebrew letters. For others the fonts
that are installed are asked, and where none has a letter, a name is replaced by its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from fedexp.reporting.results import Run

OWN = "DejaVu Sans"  # always there: matplotlib brings it
FURTHER = (  # with the letters of many people, on the common systems
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "Nirmala UI"),
    *("PingFang SC", "Heiti SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai", "Noto Sans", "FreeSans"),
)


def legible(names: Sequence[str]) -> list[str]:
    """The names, or, for one with a letter that no font here has, `class 3` for the fourth."""
    return [name if can_be_drawn(name) else f"class {k}" for k, name in enumerate(names)]


def drawn_names(run: Run, clients: Iterable[int]) -> list[str]:
    """What clients are called in a plot: their numbers, where they have no names."""
    if not run.names_clients:
        return [str(client) for client in clients]
    named = {client: run.client_name(client) for client in clients}
    return [name if can_be_drawn(name) else str(client) for client, name in named.items()]


def can_be_drawn(text: str) -> bool:
    """Whether a font that is installed has every letter."""
    return text.isascii() or all(_is_known(letter) for letter in text if not letter.isspace())


def use_installed_fonts(figure: Figure) -> None:
    """Let texts of other letters than ASCII be drawn, as far as they can; "?" for the rest."""
    for text in _texts(figure):
        written = text.get_text()
        if not written.isascii():
            text.set_fontfamily([OWN, *_installed()])
            known = (letter if letter.isspace() or _is_known(letter) else "?" for letter in written)
            text.set_text("".join(known))


def _texts(figure: Figure) -> Iterator[Text]:
    """The texts that we wrote: to look at all that a figure is made of takes as long as to draw."""
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for axes in figure.axes:
        named = [axes.xaxis, axes.yaxis]
        if all(_words_at(axis).isascii() for axis in named):
            yield from (axes.xaxis.label, axes.yaxis.label)
            yield from (child for child in axes.get_children() if isinstance(child, Text))
        else:
            yield from axes.findobj(Text)


def _words_at(axis: Axis) -> str:
    """What stands at an axis whose ticks have names."""
    return "".join(getattr(axis.get_major_formatter(), "seq", ""))


@cache
def _installed() -> tuple[str, ...]:
    there = set(font_manager.fontManager.get_font_names())
    return tuple(name for name in FURTHER if name in there)


@cache
def _is_known(letter: str) -> bool:
    return any(_font(family).get_char_index(ord(letter)) for family in (OWN, *_installed()))


@cache
def _font(family: str) -> FT2Font:
    return font_manager.get_font(font_manager.findfont(family))
