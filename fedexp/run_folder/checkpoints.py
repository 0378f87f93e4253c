"""Checkpoints: a server state in a file, with a digest and the length of the record beside it.

`torch.load` does not notice flipped bits in a tensor, and a record that lost lines does not belong
to a state any more; so both are noted in a small JSON file beside each checkpoint, and one that
does not agree is not used.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from fedexp.core.checks import InputError
from fedexp.core.files import to_json, write_atomically
from fedexp.core.types import Metric, ServerState

CHECKPOINT_FORMAT = 3
STATES = ("optimizer", "aggregator", "detector", "memory", "privacy", "ledger")  # of parts


class Unreadable(Exception):
    """A checkpoint that cannot be used; says why."""


def checkpoint_bytes(state: ServerState, config_hash: str) -> bytes:
    """The state and the config that it belongs to, for `write_checkpoint`."""
    buffer = io.BytesIO()
    document = {
        "format": CHECKPOINT_FORMAT,
        "config_hash": config_hash,
        "round": state.round,
        "params": state.params.cpu(),
        "failed_rounds": state.failed_rounds,
        **{part: {k: v.cpu() for k, v in getattr(state, part).items()} for part in STATES},
    }
    torch.save(document, buffer)
    return buffer.getvalue()


def write_checkpoint(path: Path, content: bytes, round: int, rows: int) -> None:
    """Write a checkpoint, and beside it what it has to agree with: digest and rows recorded."""
    write_atomically(path, content)
    note = {"round": round, "rows": rows, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(path.with_suffix(".json"), to_json(note))


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its note."""
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)


def read_checkpoint(path: Path, expected_hash: str, rows: Sequence[Metric]) -> ServerState:
    """The state in a checkpoint.

    Args:
        path: the checkpoint.
        expected_hash: of the config that it has to belong to.
        rows: the record so far, of which the checkpoint knows the length.

    Raises:
        Unreadable: it is damaged, or the record is.
        InputError: it belongs to another config.
    """
    try:
        note = json.loads(path.with_suffix(".json").read_text())
        content = path.read_bytes()
        digest, round, expected_rows = note["sha256"], note["round"], note["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"what was noted about it cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Unreadable("its content does not have the SHA-256 that was noted")
    recorded = sum(row.round <= round for row in rows)
    if recorded != expected_rows:
        raise Unreadable(f"metrics.jsonl holds {recorded} rows of its rounds, not {expected_rows}")
    # The digest agrees, so this is what we wrote; weights_only all the same.
    document = torch.load(io.BytesIO(content), weights_only=True)
    if document["format"] != CHECKPOINT_FORMAT:
        raise Unreadable(f"its format is {document['format']}, not {CHECKPOINT_FORMAT}")
    if document["config_hash"] != expected_hash:
        raise InputError(
            "its config.yaml is not the one that its checkpoints were made with",
            "RUN_DIR",
            path.parent.parent,
        )
    return ServerState(
        round=document["round"],
        params=document["params"],
        failed_rounds=document["failed_rounds"],
        **{part: document[part] for part in STATES},
    )
