"""What stays with clients, on the disk: one file a round, with the states of that round's clients.

    client_state/round-000012.safetensors    tensors "CLIENT/NAME" of the clients of round 12

A client's state after round r is in its newest file up to r, so that a round reads and writes no
more than its cohort's, however many clients there are. A file is whole at any moment, is never
changed, and stays for as long as a checkpoint in the folder, or the state that the run is at, has a
client's newest state in it. Beside a checkpoint it is noted which files those are, with their
digests (`fedexp.run_folder.checkpoints`); which clients are in a file is said in its own header.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fedexp.core.files import write_atomically
from fedexp.core.round_record import Kept
from fedexp.core.types import State


@dataclass(frozen=True)
class _File:
    path: Path
    round: int
    sha256: str


@final
@dataclass(frozen=True)
class OnDisk:
    """One client's state in a file; read when it is asked for."""

    file: _File
    client: int
    names: tuple[str, ...]

    def read(self) -> State:
        """The named tensors, as copies."""
        from safetensors import safe_open

        with safe_open(self.file.path, framework="pt") as opened:
            return {name: opened.get_tensor(f"{self.client}/{name}").clone() for name in self.names}


@final
@dataclass(frozen=True)
class ClientStates:
    """The files below a run folder.

    Args:
        run: the run folder; nothing is made in it before a client keeps something.
    """

    run: Path

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.run / "client_state"

    def keep(
        self, round: int, before: Mapping[int, Kept], states: Mapping[int, State]
    ) -> Mapping[int, Kept]:
        """`before`, with the `states` of the clients of `round`, now in a file of their own."""
        from safetensors.torch import save

        if not states:
            return before
        tensors = {
            # Copies: the format refuses tensors that share memory, as those of a first state may.
            f"{client}/{name}": tensor.detach().cpu().clone()
            for client, state in states.items()
            for name, tensor in state.items()
        }
        content = save(tensors, metadata={"round": str(round)})
        self.folder.mkdir(exist_ok=True)
        file = _File(self._path(round), round, hashlib.sha256(content).hexdigest())
        write_atomically(file.path, content)
        new = {client: OnDisk(file, client, tuple(state)) for client, state in states.items()}
        return {**before, **new}

    def files(self, clients: Mapping[int, Kept]) -> dict[int, str]:
        """The rounds whose files hold what `clients` keep, with the files' SHA-256."""
        needed = {}
        for kept in clients.values():
            if not isinstance(kept, OnDisk) or kept.file.path.parent != self.folder:
                raise ValueError(
                    f"what the clients keep does not lie in {self.folder}: run the rounds with "
                    "Experiment.store=ClientStates(folder)"
                )
            needed[kept.file.round] = kept.file.sha256
        return dict(sorted(needed.items()))

    def open(self, files: Mapping[int, str]) -> dict[int, Kept]:
        """What clients keep according to `files`, as `files` gave them.

        Raises:
            OSError: a file is not there, or cannot be read.
            ValueError: a file does not have the digest, or holds no states.
        """
        from safetensors import SafetensorError, safe_open

        clients: dict[int, Kept] = {}
        for round, sha256 in sorted(files.items()):
            file = _File(self._path(round), round, sha256)
            with file.path.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                    raise ValueError(f"{file.path.name} does not have the SHA-256 that was noted")
            names = defaultdict(list)
            try:
                with safe_open(file.path, framework="pt") as opened:
                    for key in opened.keys():  # noqa: SIM118 - it is no mapping
                        client, _, name = key.partition("/")
                        names[int(client)].append(name)
            except SafetensorError as error:
                raise ValueError(f"{file.path.name} is broken: {error}") from error
            clients |= {c: OnDisk(file, c, tuple(sorted(own))) for c, own in names.items()}
        return clients

    def keep_only(self, rounds: Collection[int]) -> None:
        """Remove the files of all other rounds, and the folder if none is left."""
        if not self.folder.is_dir():
            return
        if not rounds:
            shutil.rmtree(self.folder)
            return
        needed = {self._path(round).name for round in rounds}
        for path in self.folder.glob("round-*.safetensors"):
            if path.name not in needed:
                path.unlink()

    def _path(self, round: int) -> Path:
        return self.folder / f"round-{round:06d}.safetensors"
