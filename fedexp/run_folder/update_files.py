"""Updates as files, the way people share them: written by a run, read from anywhere.

    updates/index.csv                                who sent what, and who was malicious
    updates/round-000001/client-00003.safetensors    names to tensors of the delta, local - global,
                                                     and of what else was sent
    updates/round-000001/client-00003.pth            the same for torch.load

`fedexp.run_folder.update_folder` reads them, and others.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.files import append, write_atomically
from fedexp.core.types import Sent, Updates
from fedexp.run_folder.untrusted import ORDER

COLUMNS = ("round", "client", "malicious", "num_examples", "norm", "file", "sha256")


@final
@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's tensors, in the order of its vector `[d]`.

    >>> Layout(("weight", "bias"), ((2, 3), (2,))).d
    8
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """The layout of `fedexp.core.flat.vector_of(module)`."""
        parameters = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        buffers = [(n, b) for n, b in module.named_buffers() if b.is_floating_point()]
        return cls.of_tensors(dict([*parameters, *buffers]))

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of tensors by name, in their order."""
        return cls(tuple(tensors), tuple(tuple(t.shape) for t in tensors.values()))

    @property
    def d(self) -> int:
        """How many numbers there are."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def unordered(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Names and shapes, whatever their order."""
        return frozenset(zip(self.names, self.shapes, strict=True))

    def beside(self, sends: Sequence[Sent]) -> Layout:
        """The layout of rows `[D]`: the delta, then what else is sent under its own names.

        Raises:
            InputError: the model has a tensor of such a name.
        """
        for sent in sends:
            if sent.name in self.names:
                raise InputError("the model has a tensor of that name", "sends", sent.name)
        return Layout(
            (*self.names, *(sent.name for sent in sends)),
            (*self.shapes, *((sent.size(self.d),) for sent in sends)),
        )

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The tensors of a vector `[d]`, by name, as copies."""
        parts = vector.split([math.prod(shape) for shape in self.shapes])
        return {
            name: part.clone().view(shape)
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The vector `[d]` float32 of tensors that have this layout, in whatever order."""
        return torch.cat([tensors[name].float().reshape(-1) for name in self.names])

    def difference(self, other: Layout) -> str:
        """What sets another layout apart from this one but for its order; "" for nothing."""
        expected, there = dict(self.unordered), dict(other.unordered)
        if expected == there:
            return ""
        numbers = "" if other.d == self.d else f"holds {other.d:,} numbers, not {self.d:,}: "
        for name in self.names:
            if name not in there:
                return f"{numbers}lacks {name!r}"
            if there[name] != expected[name]:
                return f"{numbers}its {name!r} is {_by(there[name])}, not {_by(expected[name])}"
        more = next(name for name in other.names if name not in expected)
        return f"{numbers}has {more!r}, which is not expected"

    def to_json(self) -> str:
        """As text, for `from_json`."""
        return json.dumps([list(pair) for pair in zip(self.names, self.shapes, strict=True)])

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """The layout that `to_json` wrote; ValueError or TypeError if it did not."""
        pairs = [(str(name), tuple(int(n) for n in shape)) for name, shape in json.loads(text)]
        return cls(tuple(name for name, _ in pairs), tuple(shape for _, shape in pairs))


class UpdateRecord(Protocol):
    """Keeps what the server received, or does not."""

    def write(self, round: int, updates: Updates, malicious: Sequence[bool]) -> None:
        """Keep the rows of `round` (from 1); `malicious` `[n]` says whose row is an adversary's."""

    def keep_until(self, round: int) -> None:
        """Forget the rounds after `round`; 0 forgets all."""


@final
class NoUpdates:
    """Keeps nothing."""

    def write(self, round: int, updates: Updates, malicious: Sequence[bool]) -> None:
        """Nothing."""

    def keep_until(self, round: int) -> None:
        """Nothing."""


@final
class UpdateWriter:
    """Writes updates into `folder/updates`, a file a row and kind, and their index.

    A round's index rows follow its files: a file without one is left from a killed round, which
    `keep_until` removes.

    Args:
        folder: the run folder.
        layout: of a row: the model, and what is sent beside its delta.
        kinds: "safetensors", "pth" or both.
    """

    def __init__(self, folder: Path, layout: Layout, kinds: Sequence[str]) -> None:
        self._folder, self._layout = folder / "updates", layout
        self._encoders = {kind: _ENCODERS[kind] for kind in kinds}

    def write(self, round: int, updates: Updates, malicious: Sequence[bool]) -> None:
        """Write the rows of `round` (from 1), each file whole or not at all."""
        place = f"round-{round:06d}"
        (self._folder / place).mkdir(parents=True, exist_ok=True)
        rows = updates.matrix.cpu()
        examples = updates.num_examples.tolist()
        lines: list[Sequence[object]] = []
        for k, client in enumerate(updates.client_ids):
            norm = float(torch.linalg.vector_norm(rows[k], dtype=torch.float64))
            tensors = self._layout.split(rows[k])
            # Negative: a mixture of clients.
            sender = f"client-{client:05d}" if client >= 0 else f"mixture-{-client:05d}"
            for kind, encode in self._encoders.items():
                content = encode(tensors)
                name = f"{place}/{sender}.{kind}"
                write_atomically(self._folder / name, content)
                digest = hashlib.sha256(content).hexdigest()
                about = [round, client, int(malicious[k]), f"{examples[k]:g}", repr(norm)]
                lines.append([*about, name, digest])
        index = self._folder / "index.csv"
        append(index, _csv(lines) if index.exists() else _csv([COLUMNS, *lines]))

    def keep_until(self, round: int) -> None:
        """Remove the files and index rows of rounds after `round`, and a half-written row."""
        if not self._folder.is_dir():
            return
        index = self._folder / "index.csv"
        kept = [row for row in index_rows(index) if int(row["round"]) <= round]
        lines = [[row[column] for column in COLUMNS] for row in kept]
        write_atomically(index, _csv([COLUMNS, *lines]))
        for place in self._folder.glob("round-*"):
            number = place.name.removeprefix("round-")
            if number.isdecimal() and int(number) > round:
                shutil.rmtree(place)


def update_record(
    record_updates: bool | str, folder: Path, module: nn.Module, sends: Sequence[Sent] = ()
) -> UpdateRecord:
    """What `record_updates` asks for: false, true (both kinds), safetensors or pth.

    Args:
        record_updates: the config's value.
        folder: the run folder.
        module: any model of the run's architecture, for names and shapes.
        sends: what clients send beside their deltas; recorded under its own names.

    Raises:
        InputError: it is something else.
    """
    if record_updates is False:
        return NoUpdates()
    kinds = {"True": tuple(_ENCODERS), **{kind: (kind,) for kind in _ENCODERS}}
    if str(record_updates) not in kinds:
        allowed = f"false, true, {', '.join(_ENCODERS)}"
        raise InputError(f"Allowed: {allowed}", "record_updates", record_updates)
    return UpdateWriter(folder, Layout.of(module).beside(sends), kinds[str(record_updates)])


def index_rows(index: Path) -> list[dict[str, str]]:
    """The rows of an index that can be understood; none where there is no index."""
    if not index.is_file():
        return []
    text = index.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = []
    try:
        for row in csv.DictReader(io.StringIO(text)):
            known = {column: row.get(column) for column in COLUMNS}
            if _understood(known):
                rows.append({column: str(value) for column, value in known.items()})
    except csv.Error as error:
        raise InputError(f"cannot be read: {error}", "index.csv", index) from error
    return rows


def _understood(row: Mapping[str, str | None]) -> bool:
    """Whether a row is whole: the one in which a process was killed may be not."""
    numbers = all(re.fullmatch(r"-?\d{1,15}", row[c] or "") for c in ("round", "client"))
    digest = re.fullmatch(r"[0-9a-f]{64}", row["sha256"] or "")
    return bool(numbers and digest and row["malicious"] in ("0", "1") and row["file"])


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    # The format sorts its tensors, but a detector of a run reads its vector in the run's order.
    return bytes(save(dict(tensors), metadata={ORDER: json.dumps(list(tensors))}))


def _as_pickle(tensors: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    return buffer.getvalue()


_ENCODERS: dict[str, Callable[[Mapping[str, Tensor]], bytes]] = {
    "safetensors": _as_safetensors,
    "pth": _as_pickle,
}
