"""Checkpoints: a server state in a file, and with it all that must not be lost with the power.

`torch.load` does not notice flipped bits in a tensor, so a checkpoint has its own SHA-256 as the
comment at the end of its zip archive. It is the one file of a round that is flushed to the disk,
and so carries what the disk is not known to have of the files that grow
(`fedexp.run_folder.growing`): the record that belongs to a state can be made again from the two.
What clients keep lies in files of its own, of which it says which and with what digests
(`fedexp.run_folder.client_states`).

In versions before 0.2 digest and length of the record lay in a small JSON file beside it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.documents import read_json_object, read_regular
from fedexp.core.files import write_atomically
from fedexp.core.round_record import STATES, ServerState
from fedexp.run_folder.client_states import ClientStates
from fedexp.run_folder.growing import Carried
from fedexp.run_folder.pickles import refuse_deep_pickles
from fedexp.run_folder.rows import count_until

CHECKPOINT_FORMAT = 5
CHECKPOINT_BYTES = 2**36

_SEAL = b"sha256:"  # and the digest, in hex, as the comment at the end of the zip archive
_NO_COMMENT = b"\0\0"  # its length, the last two bytes of an archive without one


class Unreadable(Exception):
    """A checkpoint that cannot be used; says why."""


@final
@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        state: after its round.
        carried: by file name, the ends of the files that grow; None in one of an older version.
        client_files: the files with what clients keep, see `ClientStates.files`.
    """

    state: ServerState
    carried: Mapping[str, Carried] | None
    client_files: Mapping[int, str]


def checkpoint_bytes(
    state: ServerState,
    config_hash: str,
    carried: Mapping[str, Carried],
    client_files: Mapping[int, str],
) -> bytes:
    """A file for `torch.load` that knows what it has to agree with, and its own SHA-256."""
    buffer = io.BytesIO()
    document = {
        "format": CHECKPOINT_FORMAT,
        "config_hash": config_hash,
        "round": state.round,
        "params": state.params.cpu(),
        "failed_rounds": state.failed_rounds,
        **{part: {k: v.cpu() for k, v in getattr(state, part).items()} for part in STATES},
        "carried": {name: {"start": c.start, "end": _tensor(c.end)} for name, c in carried.items()},
        "client_state": dict(client_files),
    }
    torch.save(document, buffer)
    return _sealed(buffer.getvalue())


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else _NOTHING


_NOTHING = torch.empty(0, dtype=torch.uint8)


def _sealed(content: bytes) -> bytes:
    assert content.endswith(_NO_COMMENT), "torch has given its archive a comment"
    seal = _SEAL + hashlib.sha256(content).hexdigest().encode()
    return content[:-2] + len(seal).to_bytes(2, "little") + seal


def _is_whole(content: bytes) -> bool:
    """Whether it has the digest that is its comment."""
    size = len(_SEAL) + 64
    digest = hashlib.sha256(memoryview(content)[: -size - 2])
    digest.update(_NO_COMMENT)
    return content[-size:] == _SEAL + digest.hexdigest().encode()


def _document(content: bytes) -> dict[str, Any]:
    """What a file holds, if that is of the kinds that `checkpoint_bytes` puts there."""
    refuse_deep_pickles(content)
    document = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    document.setdefault("attack", {})  # of the time before attacks remembered anything
    states = [document.get(part, {}) for part in STATES]
    carried = document.get("carried", {}).values()
    files = document.get("client_state", {})
    numbers = [document[key] for key in ("format", "round", "failed_rounds")]
    numbers += [*files, *(one["start"] for one in carried)]
    fits = all(type(number) is int and number >= 0 for number in numbers)
    fits &= type(document["params"]) is torch.Tensor
    fits &= all(type(t) is torch.Tensor for state in states for t in state.values())
    fits &= all(one["end"].dtype == torch.uint8 for one in carried)
    fits &= all(type(sha256) is str for sha256 in files.values())
    if not fits:
        raise ValueError("its parts are of other kinds")
    return dict(document)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, and the note beside one of an older version."""
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)


def remove_old_checkpoints(folder: Path, kept: int) -> None:
    """Remove all but the newest, and notes whose checkpoint is gone."""
    for old in sorted(folder.glob("round-*.pt"))[:-kept]:
        remove_checkpoint(old)
    for note in folder.glob("*.json"):
        if not note.with_suffix(".pt").exists():
            note.unlink(missing_ok=True)


def read_checkpoint(path: Path, accepted_hashes: Sequence[str]) -> Checkpoint:
    """What a checkpoint holds.

    Args:
        path: the checkpoint, in a run's folder.
        accepted_hashes: of the config that it has to belong to, one of them.

    Raises:
        Unreadable: it is damaged, or what it has to agree with is.
        InputError: it belongs to another config.
    """
    try:
        content = read_regular(path, CHECKPOINT_BYTES)
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error})") from error
    note = _note_beside(path, content)
    # The digest agrees, so this is what we wrote, or somebody who wrote the digest as well.
    try:
        document = _document(content)
    except Exception as error:  # whatever a broken file makes its reader raise
        reason = str(error).partition("\n")[0]
        raise Unreadable(f"it holds no state ({reason or type(error).__name__})") from error
    if document["format"] == 3 and not document["memory"]:  # as 4, but for names
        document |= {"format": 4, "algorithm": {}}
    if document["format"] != (CHECKPOINT_FORMAT if note is None else 4):
        raise Unreadable(f"its format is {document['format']}, not {CHECKPOINT_FORMAT}")
    if document["config_hash"] not in accepted_hashes:
        raise InputError(
            "its config.yaml is not the one that its checkpoints were made with",
            "RUN_DIR",
            path.parent.parent,
        )
    if note is None:
        files = document["client_state"]
        ends = document["carried"].items()
        carried = {name: Carried(c["start"], c["end"].numpy().tobytes()) for name, c in ends}
        cut = [name for name, end in carried.items() if not end.fits(path.parent.parent / name)]
        if cut:
            raise Unreadable(f"{cut[0]} has lost some of its rounds")
    else:
        files, carried = note, None
    try:
        clients = ClientStates(path.parent.parent).open(files)
    except (OSError, ValueError) as error:
        raise Unreadable(f"what clients keep cannot be read ({error})") from error
    state = ServerState(
        round=document["round"],
        params=document["params"],
        failed_rounds=document["failed_rounds"],
        clients=clients,
        **{part: document[part] for part in STATES},
    )
    return Checkpoint(state, carried, files)


def _note_beside(path: Path, content: bytes) -> dict[int, str] | None:
    """The client files that an older version's note names, which lies beside the checkpoint.

    None: the checkpoint says itself what it has to agree with.

    Raises:
        Unreadable: the checkpoint or the record is not what was noted.
    """
    beside = path.with_suffix(".json")
    if _is_whole(content):
        return None
    if not beside.exists():
        raise Unreadable("its content does not have the SHA-256 that was noted")
    try:
        note = read_json_object(beside)
        digest, round, expected_rows = note["sha256"], int(note["round"]), note["rows"]
        files = {int(round): str(sha256) for round, sha256 in note.get("client_state", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"what was noted about it cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Unreadable("its content does not have the SHA-256 that was noted")
    recorded = count_until(path.parent.parent, round)
    if recorded != expected_rows:
        raise Unreadable(f"the record holds {recorded} rows of its rounds, not {expected_rows}")
    return files


def rename_config(folder: Path, config_hash: str) -> None:
    """Have the checkpoints in `folder` belong to another config, under which they are the same."""
    for path in folder.glob("*.pt"):
        document = _document(read_regular(path, CHECKPOINT_BYTES))
        if document["config_hash"] != config_hash:
            buffer = io.BytesIO()
            torch.save({**document, "config_hash": config_hash}, buffer)
            write_atomically(path, _sealed(buffer.getvalue()))
