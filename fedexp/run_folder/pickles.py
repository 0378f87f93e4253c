"""How deep and how large a pickle's objects are, from its opcodes alone: nothing of it is made.

A stranger's pickle can nest a million tuples in a megabyte, or hold one tuple of 2^60 that are all
the same. To load it takes half a minute, and to use it as a key, which hashes it all the way down,
hangs or kills the process. A state dict nests a handful.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import NamedTuple

DEEPEST = 64
LARGEST = 10_000_000
"""Objects in one, those that it holds twice counted twice."""

MOST_BYTES = 2**26  # of what says where the numbers are; the numbers lie elsewhere

HIGHEST = 20_000
"""Objects that wait on the stack; torch fills containers a thousand at a time."""

_IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_MEMORISE = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_RECALL = {"GET", "BINGET", "LONG_BINGET"}


class _Extent(NamedTuple):
    depth: int
    size: int


_MARK, _LEAF = _Extent(-1, 0), _Extent(0, 1)


class TooDeep(Exception):
    """A pickle whose objects are no state dict's; says so in a line."""


def refuse_deep_pickles(content: bytes) -> None:
    """Look at every pickle in a file of torch's, zip archive or older format.

    Raises:
        TooDeep: one nests deeper than `DEEPEST`, or holds or piles up more objects than any model.
        ValueError: one is broken.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        stream = io.BytesIO(content)
        for _ in range(5):  # magic number, protocol, system, the object, storages; then raw numbers
            _look_at(stream)
            if stream.tell() >= len(content):
                break
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                if entry.file_size > MOST_BYTES:
                    raise TooDeep(f"describes its tensors in {entry.file_size:,} bytes")
                _look_at(io.BytesIO(archive.read(entry)))


def _look_at(stream: io.BytesIO) -> None:
    """One pickle, from where the stream stands to behind its end."""
    stack: list[_Extent] = []
    memo: dict[int, _Extent] = {}
    marks = 0
    for opcode, argument, _ in pickletools.genops(stream):
        name, before = opcode.name, opcode.stack_before
        if name == "MARK":
            stack.append(_MARK)
            marks += 1
        elif name in _MEMORISE:
            memo[len(memo) if name == "MEMOIZE" else int(str(argument))] = _top(stack)
        elif name in _RECALL:
            stack.append(memo.get(int(str(argument)), _LEAF))
        elif name == "DUP":
            stack.append(_top(stack))
        elif name == "POP":
            marks -= _top(stack) is _MARK
            stack.pop()
        elif not before:
            stack.append(_LEAF)
        elif name != "STOP":
            inside: list[_Extent] = []
            below = len(before)
            if pickletools.markobject in before:
                below = before.index(pickletools.markobject)
                marks -= 1
                while _top(stack) is not _MARK:
                    inside.append(stack.pop())
                stack.pop()
            for _ in range(below):
                inside.append(_top(stack))
                stack.pop()
            depth = 1 + max((extent.depth for extent in inside), default=0)
            if name in _IN_PLACE:  # into the lowest of what it takes, which stays
                depth = max(inside[-1].depth, 1 + max((e.depth for e in inside[:-1]), default=0))
            whole = _Extent(depth, 1 + sum(extent.size for extent in inside))
            if whole.depth > DEEPEST or whole.size > LARGEST:
                raise TooDeep(f"nests deeper than {DEEPEST}, or holds more than any state dict")
            stack.extend([whole] * len(opcode.stack_after))
        if len(stack) > HIGHEST or marks > DEEPEST:
            raise TooDeep("nests or piles up objects as no state dict does")


def _top(stack: list[_Extent]) -> _Extent:
    if not stack:
        raise ValueError("takes from an empty stack")
    return stack[-1]
