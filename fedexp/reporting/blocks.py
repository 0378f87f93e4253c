"""The Markdown of our own reports as blocks, whose words a template escapes.

Only what our reports write is known: headings, tables, lists, paragraphs and **bold** words. What
is none of them is text, so that nothing in a run's folder can become markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

_CELLS = re.compile(r"(?<!\\)\|")


@final
@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        kind: heading, table, list or text.
        text: of a heading or a paragraph.
        columns: of a table.
        rows: of a table its cells, of a list its items in one cell each.
    """

    kind: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())


def blocks_of(page: str) -> list[Block]:
    r"""The blocks of Markdown text.

    >>> [block.kind for block in blocks_of("## A\n\n| a |\n|:--|\n| 1 |\n\n- x\n- y\n\nwords")]
    ['heading', 'table', 'list', 'text']
    """
    return list(_blocks(page))


def pieces(text: str) -> list[tuple[str, bool]]:
    """Text in pieces, each with whether it is bold.

    >>> pieces("it is **not** so")
    [('it is ', False), ('not', True), (' so', False)]
    """
    parts = text.split("**")
    if len(parts) % 2 == 0:  # a pair lacks its end: the stars are text
        return [(text, False)]
    return [(part, bool(k % 2)) for k, part in enumerate(parts) if part]


def _blocks(page: str) -> Iterator[Block]:
    for part in re.split(r"\n{2,}", page.strip("\n")):
        lines = part.split("\n")
        if lines[0].startswith("#"):
            yield Block("heading", lines.pop(0).lstrip("#").strip())
        if not lines:
            continue
        if all(line.startswith("|") for line in lines):
            head, _, *rows = map(_cells, lines)
            yield Block("table", columns=head, rows=tuple(rows))
        elif all(line.startswith("- ") for line in lines):
            yield Block("list", rows=tuple((line[2:],) for line in lines))
        else:
            yield Block("text", " ".join(lines))


def _cells(line: str) -> tuple[str, ...]:
    cells = _CELLS.split(line.strip())[1:-1]
    return tuple(cell.strip().replace("\\|", "|") for cell in cells)
