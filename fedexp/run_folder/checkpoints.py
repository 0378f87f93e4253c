"""Checkpoints: a server state in a file, with a digest and the length of the record beside it.

`torch.load` does not notice flipped bits in a tensor, and a record that lost lines does not belong
to a state any more; so both are noted in a small JSON file beside each checkpoint, and one that
does not agree is not used. What clients keep lies in files of its own, of which the note says which
and with what digests (`fedexp.run_folder.client_states`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedexp.core.checks import InputError
from fedexp.core.documents import read_json_object, read_regular
from fedexp.core.files import to_json, write_atomically
from fedexp.core.types import Metric, ServerState
from fedexp.run_folder.client_states import ClientStates
from fedexp.run_folder.pickles import refuse_deep_pickles

CHECKPOINT_FORMAT = 4
CHECKPOINT_BYTES = 2**36
STATES = ("optimizer", "algorithm", "aggregator", "detector", "privacy", "ledger")  # of parts


class Unreadable(Exception):
    """A checkpoint that cannot be used; says why."""


def _document(content: bytes) -> dict[str, Any]:
    """What a file holds, if that is of the kinds that `checkpoint_bytes` puts there."""
    refuse_deep_pickles(content)
    document = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    states = [document.get(part, {}) for part in STATES]
    numbers = [document[key] for key in ("format", "round", "failed_rounds")]
    fits = all(type(number) is int and number >= 0 for number in numbers)
    fits &= type(document["params"]) is torch.Tensor
    fits &= all(type(t) is torch.Tensor for state in states for t in state.values())
    if not fits:
        raise ValueError("its parts are of other kinds")
    return dict(document)


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


def write_checkpoint(
    path: Path, content: bytes, round: int, rows: int, client_files: Mapping[int, str]
) -> None:
    """Write a checkpoint, and beside it what it has to agree with.

    Args:
        path: of the checkpoint.
        content: see `checkpoint_bytes`.
        round: rounds completed.
        rows: recorded so far.
        client_files: the files with what clients keep, see `ClientStates.files`.
    """
    write_atomically(path, content)
    note = {
        "round": round,
        "rows": rows,
        "sha256": hashlib.sha256(content).hexdigest(),
        "client_state": client_files,
    }
    write_atomically(path.with_suffix(".json"), to_json(note))


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its note."""
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)


def remove_old_checkpoints(folder: Path, kept: int) -> None:
    """Remove all but the newest, and notes whose checkpoint a killed process has removed."""
    for old in sorted(folder.glob("round-*.pt"))[:-kept]:
        remove_checkpoint(old)
    for note in folder.glob("*.json"):
        if not note.with_suffix(".pt").exists():
            note.unlink(missing_ok=True)


def client_files_needed(folder: Path) -> set[int]:
    """The rounds of which a checkpoint in `folder` needs what clients kept."""
    needed: set[int] = set()
    for path in folder.glob("*.json"):
        try:
            needed |= _client_files(read_json_object(path)).keys()
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # its checkpoint cannot be used
    return needed


def _client_files(note: Mapping[str, Any]) -> dict[int, str]:
    return {int(round): sha256 for round, sha256 in note.get("client_state", {}).items()}


def read_checkpoint(
    path: Path, accepted_hashes: Sequence[str], rows: Sequence[Metric]
) -> ServerState:
    """The state in a checkpoint.

    Args:
        path: the checkpoint.
        accepted_hashes: of the config that it has to belong to, one of them.
        rows: the record so far, of which the checkpoint knows the length.

    Raises:
        Unreadable: it is damaged, or the record is.
        InputError: it belongs to another config.
    """
    try:
        note = read_json_object(path.with_suffix(".json"))
        content = read_regular(path, CHECKPOINT_BYTES)
        digest, round, expected_rows = note["sha256"], int(note["round"]), note["rows"]
        files = _client_files(note)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"what was noted about it cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Unreadable("its content does not have the SHA-256 that was noted")
    recorded = sum(row.round <= round for row in rows)
    if recorded != expected_rows:
        raise Unreadable(f"metrics.jsonl holds {recorded} rows of its rounds, not {expected_rows}")
    # The digest agrees, so this is what we wrote, or somebody who wrote the note as well.
    try:
        document = _document(content)
    except Exception as error:  # whatever a broken file makes its reader raise
        reason = str(error).partition("\n")[0]
        raise Unreadable(f"it holds no state ({reason or type(error).__name__})") from error
    if document["format"] == 3 and not document["memory"]:  # as 4, but for names
        document |= {"format": CHECKPOINT_FORMAT, "algorithm": {}}
    if document["format"] != CHECKPOINT_FORMAT:
        raise Unreadable(f"its format is {document['format']}, not {CHECKPOINT_FORMAT}")
    if document["config_hash"] not in accepted_hashes:
        raise InputError(
            "its config.yaml is not the one that its checkpoints were made with",
            "RUN_DIR",
            path.parent.parent,
        )
    try:
        clients = ClientStates(path.parent.parent).open(files)
    except (OSError, ValueError) as error:
        raise Unreadable(f"what clients keep cannot be read ({error})") from error
    return ServerState(
        round=document["round"],
        params=document["params"],
        failed_rounds=document["failed_rounds"],
        clients=clients,
        **{part: document[part] for part in STATES},
    )


def rename_config(folder: Path, config_hash: str) -> None:
    """Have the checkpoints in `folder` belong to another config, under which they are the same."""
    for path in folder.glob("*.pt"):
        document = _document(read_regular(path, CHECKPOINT_BYTES))
        if document["config_hash"] == config_hash:
            continue
        note = read_json_object(path.with_suffix(".json"))
        buffer = io.BytesIO()
        torch.save({**document, "config_hash": config_hash}, buffer)
        files = _client_files(note)
        write_checkpoint(path, buffer.getvalue(), int(note["round"]), int(note["rows"]), files)
