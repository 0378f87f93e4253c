"""What is kept of a round that the server saw: a slope for every row and example, and no row.

    RUN/leakage/seen/round-000001.safetensors
        slopes     [k, n] float32: how much row k lowers the loss of example n (`slopes.py`)
        clients    [c] int64: the clients that are in the rows
        row_of     [c] int64: the row that each is in
        step       [1, n] float32: the same of what the server sent out next less what it sent
                   before, which every client sees; [0, n] where that is not known

A file says by a digest which examples it is about.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from fedexp.core.files import write_atomically
from fedexp.core.types import Updates
from fedexp.leakage.membership.asked import Asked
from fedexp.leakage.membership.slopes import slopes
from fedexp.leakage.victim import Victim

FOLDER = "seen"
FORMAT = "fedexp-seen-1"
_TENSORS = ("slopes", "clients", "row_of", "step")


@final
@dataclass(frozen=True)
class Seen:
    """One round, as it bears on the examples in question; see the module."""

    slopes: np.ndarray
    clients: np.ndarray
    row_of: np.ndarray
    step: np.ndarray
    seconds: float = field(default=0.0, compare=False)  # that it took

    @classmethod
    def of(
        cls,
        victim: Victim,
        asked: Asked,
        params: Tensor,
        rows: Tensor,
        members: Sequence[Sequence[int]],
        step: Tensor | None,
    ) -> Seen:
        """Made of a round.

        Args:
            victim: the run.
            asked: the examples.
            params: `[d]` that the round began with.
            rows: `[k, D]` as the channel delivered them; those that are not finite tell nothing.
            members: `[k]` the clients in each row.
            step: `[d]` what the model moved by; None where it is not known.
        """
        started = time.perf_counter()
        usable = rows.isfinite().all(dim=1).tolist()
        parts = [rows[torch.tensor(usable, dtype=torch.bool)][:, : len(params)]]
        if step is not None:
            parts.append(step.to(rows)[None])
        directions = torch.cat(parts).to(victim.device)
        found = slopes(
            victim.model,
            victim.task,
            victim.normalisation,
            params.to(victim.device),
            directions,
            asked.examples,
        )
        k = sum(usable)
        inside = [own for own, good in zip(members, usable, strict=True) if good]
        pairs = [(client, row) for row, own in enumerate(inside) for client in own]
        clients, row_of = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return cls(found[:k], clients, row_of, found[k:], time.perf_counter() - started)

    def row_of_clients(self, n_clients: int) -> np.ndarray:
        """`[n_clients]` int64, the row that each client is in; -1 for none."""
        rows = np.full(n_clients, -1)
        rows[self.clients] = self.row_of
        return rows


def members_of(received: Updates, members: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """The clients in each row; without word of them, each row is its sender's."""
    return members or [[client] for client in received.client_ids]


def path_of(folder: Path, round: int) -> Path:
    """Where the round's file lies below the run's folder."""
    return folder / "leakage" / FOLDER / f"round-{round:06d}.safetensors"


def write_seen(folder: Path, round: int, seen: Seen, asked: Asked) -> None:
    """Keep a round of the run in `folder`, whole or not at all."""
    path = path_of(folder, round)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(getattr(seen, name)) for name in _TENSORS}
    about = {"format": FORMAT, "asked": asked.digest, "seconds": repr(seen.seconds)}
    write_atomically(path, safetensors.numpy.save(tensors, metadata=about))


def read_seen(folder: Path, round: int, asked: Asked) -> Seen | None:
    """The round that was kept; None if none was, or one about other examples."""
    try:
        with safetensors.safe_open(path_of(folder, round), framework="np") as file:
            about = file.metadata() or {}
            if (about.get("format"), about.get("asked")) != (FORMAT, asked.digest):
                return None
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
            seen = Seen(**tensors, seconds=float(about.get("seconds", 0)))
    except (OSError, ValueError, safetensors.SafetensorError):
        return None
    return seen if _fits(seen, asked) else None


def _fits(seen: Seen, asked: Asked) -> bool:
    """Whether a file, which may be anybody's, holds numbers of the shapes that are needed."""
    k = len(seen.slopes)
    return (
        seen.slopes.shape == (k, len(asked))
        and seen.step.shape in ((0, len(asked)), (1, len(asked)))
        and seen.clients.ndim == 1
        and seen.clients.shape == seen.row_of.shape
        and bool(np.isin(seen.clients, np.arange(asked.n_clients)).all())
        and bool(((seen.row_of >= 0) & (seen.row_of < k)).all())
    )
