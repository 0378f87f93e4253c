"""Text that may come from a stranger's file, made fit for a terminal, a picture or a page."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context
from typing import Any


def printable(text: str) -> str:
    r"""`text` with what could move a terminal's cursor, or break a line, as escapes.

    >>> printable("client\x1b[2J\n.pth")
    'client\\x1b[2J\\n.pth'
    """
    if text.isprintable():  # as nearly always
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_name(name: object) -> bool:
    r"""Whether it can stand in a record as the name of a figure.

    >>> is_name("macro f1"), is_name(""), is_name("a\nb"), is_name(3)
    (True, False, False, False)
    """
    return isinstance(name, str) and name != "" and name.isprintable()


def printable_lines(text: str) -> str:
    r"""The same for text of several lines, which stay.

    >>> printable_lines("a\x1b\nb")
    'a\\x1b\nb'
    """
    return "\n".join(map(printable, text.split("\n")))


def duration(seconds: float) -> str:
    """In words.

    >>> duration(4), duration(250), duration(7300)
    ('4 s', '4 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def number_of(n: int, one: str, more: str = "") -> str:
    """So many of a thing.

    >>> number_of(1, "round"), number_of(1200, "round"), number_of(0, "entry", "entries")
    ('1 round', '1,200 rounds', '0 entries')
    """
    return f"{n:,} {one if n == 1 else more or f'{one}s'}"


def rounded_up(value: float) -> str:
    """Four digits of a bound, which what is printed must not be below.

    >>> rounded_up(4.776242), rounded_up(3.0), rounded_up(3 + 1e-15)  # the last is a rounding error
    ('4.777', '3', '3')
    """
    upwards = Context(prec=4, rounding=ROUND_CEILING)
    return f"{float(upwards.create_decimal_from_float(value * (1 - 1e-12))):.4g}"


def cleaned(document: Any) -> Any:
    r"""A document with every word in it made printable, names too.

    >>> cleaned({"a\x07": ["\x1b", 1]})
    {'a\\x07': ['\\x1b', 1]}
    """
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, dict):
        return {cleaned(key): cleaned(value) for key, value in document.items()}
    if isinstance(document, list):
        return [cleaned(value) for value in document]
    return document


def without_markup(page: str) -> str:
    """Markdown in which words from files can be neither HTML nor links, pictures or their targets.

    What would open a tag or follow a bracket becomes an entity, which is read as itself alone.

    >>> without_markup("<script> ![x](http://y) [0.1, 0.2] (null)")
    '&lt;script> ![x]&#40;http://y) [0.1, 0.2] (null)'
    """
    plain = printable_lines(page).replace("<", "&lt;")
    return re.sub(r"(?<=\])[(\[:]", lambda found: f"&#{ord(found[0])};", plain)


def called(part: object) -> str:
    """A part's class in full, for a message.

    >>> called(Context), called(Context())
    ('decimal.Context', 'decimal.Context')
    """
    kind = part if isinstance(part, type) else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"
