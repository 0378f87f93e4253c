"""The only writer of a run folder.

A run folder can be read after every round, and gone on with even if the process is killed in the
middle of a write, or the power goes. Files that are replaced are written beside their place and
renamed; files that grow get whole lines, and what a killed round left in them is cut off when the
run is resumed. Flushed to the disk is one file a round, the checkpoint: it carries what a loss of
power could take of the record (`fedexp.run_folder.growing`), and the rest can be made of it again.

    config.yaml           the resolved config
    origin.json           what the figures are made of, and on what they were computed
    partition.json        who holds what
    metrics.csv           one measured number of all clients together a row
    clients.bin           what was measured of single clients, by columns
    timing.jsonl          seconds a round, by phase
    confusion_matrix.csv  of the last evaluation, on test, where examples have one class
    thresholds.csv        the last model's probabilities on test, in bins (at the end)
    summary.json          status and final figures
    checkpoints/          the newest two, and the best on validation
    client_state/         what clients keep between rounds, where they keep something
    model.safetensors     the current model
    fedexp.log, plots/    what was said, and drawn (by others)
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.files import append, flush, read_lines, to_json, write_atomically
from fedexp.core.flat import FlatModel
from fedexp.core.metric import Metric
from fedexp.core.observer import RunStart
from fedexp.core.origin import Origin
from fedexp.core.protocols import Account, Task
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.core.types import Sent
from fedexp.run_folder.checkpoints import (
    Checkpoint,
    Unreadable,
    checkpoint_bytes,
    read_checkpoint,
    remove_checkpoint,
    remove_old_checkpoints,
)
from fedexp.run_folder.client_rows import FILE as CLIENTS
from fedexp.run_folder.client_rows import frame
from fedexp.run_folder.client_states import ClientStates
from fedexp.run_folder.documents import read_summary, write_config, write_summary
from fedexp.run_folder.format import (
    accepted_hashes,
    config_hash,
)
from fedexp.run_folder.growing import Carried, Growing
from fedexp.run_folder.memory import memory
from fedexp.run_folder.origin import (
    note_stretch,
    refuse_other_origin,
    remarks_on_origin,
    write_origin,
)
from fedexp.run_folder.rows import OLD, Recorded, as_csv, shared_rows, split
from fedexp.run_folder.scores import Scores
from fedexp.run_folder.shapes import TIMING, checked
from fedexp.run_folder.thresholds import forget_thresholds
from fedexp.run_folder.update_files import update_record
from fedexp.run_folder.verdict import forget_verdict

CONFUSION = "confusion_matrix.csv"
KEPT_CHECKPOINTS = 2

log = logging.getLogger(__name__)


@final
class Recorder:
    """Writes one run: its documents at the start, a record and a checkpoint after every round.

    The first of the observers of a run. Before it, `begin` or `resume` makes the folder's record
    agree with the state that the run starts from.

    Args:
        folder: an existing folder, locked by the caller.
        config: the resolved config.
        model: any model of the run's architecture, for names and shapes.
        task: what labels mean.
        test_y: the test part's labels, for the confusion matrix.
        class_names: its rows' and columns' names.
        account: says what has been spent of the privacy, for the summary.
        origin: what this process makes the figures of, and on what.
        sends: what clients send beside their deltas.

    Attributes:
        client_states: where the rounds must keep what stays with clients (`Experiment.store`).
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        model: nn.Module,
        task: Task,
        test_y: Tensor,
        class_names: Sequence[str],
        account: Account,
        origin: Origin,
        sends: Sequence[Sent] = (),
    ) -> None:
        self.folder = folder
        self.client_states = ClientStates(folder)
        self._config, self._model, self._account, self._origin = config, model, account, origin
        self._task, self._test_y, self._class_names = task, test_y, class_names
        self.recorded: Iterable[Metric] = ()  # what earlier starts of the run left, after `resume`
        self._about: dict[str, Any] = {}
        self._scores = Scores()
        self._shared, self._clients = Growing(folder / "metrics.csv"), Growing(folder / CLIENTS)
        self._confusion = b""  # as it is in its file
        self._unsaved: ServerState | None = None  # the newest state, while no checkpoint has it
        self._needed: dict[str, Collection[int]] = {}  # client files, by name of a checkpoint
        self._updates = update_record(config["record_updates"], folder, model, sends)

    def begin(self, partition_document: Mapping[str, Any]) -> None:
        """Write what is known before the first round."""
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        write_config(self.folder, self._config)
        write_origin(self.folder, self._origin)
        self.describe_partition(partition_document)
        self._begin_record()

    def _begin_record(self) -> None:
        self.recorded, self._scores, self._confusion = (), Scores(), b""
        self._shared.begin(as_csv([], header=True))
        self._clients.begin()
        write_atomically(self.folder / "timing.jsonl", b"", durable=False)
        (self.folder / OLD).unlink(missing_ok=True)
        forget_thresholds(self.folder)
        self._updates.keep_until(0)
        self.client_states.keep_only(())

    def describe_partition(self, document: Mapping[str, Any]) -> None:
        """Have partition.json hold the document."""
        path, content = self.folder / "partition.json", to_json(document)
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content, durable=False)

    def resume(self) -> ServerState | None:
        """The newest state that can be read, with everything later than it cut off the record.

        None if no round was completed. A broken checkpoint is removed with a warning.

        Raises:
            InputError: the rounds so far are those of another experiment.
        """
        checkpoints = self.folder / "checkpoints"
        saved = sorted(checkpoints.glob("round-*.pt"), reverse=True)
        for path in saved:
            try:
                checkpoint = read_checkpoint(path, accepted_hashes(self._config))
            except Unreadable as error:
                log.warning("%s cannot be used: %s; going back further", path, error)
                remove_checkpoint(path)  # or it would pass for a newer one than those to come
                continue
            state = checkpoint.state
            refuse_other_origin(self.folder, self._origin)
            self._restore(checkpoint)
            self._updates.keep_until(state.round)
            remove_old_checkpoints(checkpoints, KEPT_CHECKPOINTS)
            self._look_up_needed(checkpoints)
            self._forget_client_states(state)
            if state.round < self._config["rounds"]:
                note_stretch(self.folder, self._origin, state.round)
                forget_verdict(self.folder)
                forget_thresholds(self.folder)
            self._write_model(state)  # what is there may be a round older, or newer
            return state
        if saved or read_summary(self.folder).get("rounds"):
            log.warning("no checkpoint can be used: starting again from the first round")
        return None

    def run_started(self, run: RunStart) -> None:
        """Say that the run is going on."""
        self._about = {
            **run.about,
            "remarks": [*run.about.get("remarks", ()), *remarks_on_origin(self.folder)],
            "privacy": self._account.statement(run.state.ledger),
        }
        write_summary(self.folder, self.summary("running"), durable=False)

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Append a round to the record, save the state where it is due, and say how far we are."""
        shared, single = split(record.metrics)
        timing = json.dumps({"round": record.round, **record.seconds}) + "\n"
        self._shared.append(as_csv(shared))
        self._clients.append(frame(record.round, single))
        append(self.folder / "timing.jsonl", timing.encode(), durable=False)
        if record.received is not None:
            self._updates.write(record.round, record.received, record.malicious)
        if record.predictions is not None:
            classes = len(self._class_names)
            matrix = self._task.confusion(record.predictions, self._test_y, classes)
            if matrix is not None:
                self._confusion = self._table(matrix)
                write_atomically(self.folder / CONFUSION, self._confusion, durable=False)
        self._scores.add(shared, sum(record.seconds.values()), record.seconds["train"])
        self._checkpoint(state)
        # After every round, evaluated or not: the run may end here, and has spent that.
        self._about["privacy"] = self._account.statement(state.ledger)
        write_summary(self.folder, self.summary("running"), durable=False)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Save the last state, if that is still to be done, and the summary."""
        if summary["status"] == "complete":
            if self._unsaved is not None:
                self._save(self._unsaved, best=False, due=True)
            for name in ("metrics.csv", CLIENTS, "timing.jsonl", CONFUSION, "model.safetensors"):
                flush(self.folder / name)  # nobody will make them again
        write_summary(self.folder, summary)

    def forget(self) -> None:
        """Take back all that was recorded of rounds."""
        for path in (self.folder / "checkpoints").glob("*.pt"):
            remove_checkpoint(path)
        self._begin_record()

    def write_state(self, folder: Path, state: ServerState) -> None:
        """Write a checkpoint of the state that the record is at, in a folder of somebody else's."""
        path = folder / f"round-{state.round:06d}.pt"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self._content(state))

    def save(self, state: ServerState) -> None:
        """Have the run go on from this, and from no older state, should it be stopped now."""
        self._save(state, best=False, due=True)
        remove_old_checkpoints(self.folder / "checkpoints", 1)

    def _content(self, state: ServerState) -> bytes:
        """A checkpoint of the state that the record is at."""
        carried = {one.path.name: one.carried() for one in (self._shared, self._clients)}
        carried[CONFUSION] = Carried(0, self._confusion)
        files = self.client_states.files(state.clients)
        return checkpoint_bytes(state, config_hash(self._config), carried, files)

    def forget_checkpoint_not_due(self, state: ServerState) -> None:
        """Remove the checkpoint that `state` was read from, where the run itself had made none."""
        if state.round % self._config["checkpoint_every"]:
            remove_checkpoint(self.folder / "checkpoints" / f"round-{state.round:06d}.pt")
            self._unsaved = state

    def found(self, **figures: Any) -> None:
        """Have the summary say more."""
        self._about |= figures

    def summary(self, status: str, error: str | None = None, stopped: str = "") -> dict[str, Any]:
        """What `summary.json` says now.

        Args:
            status: running, complete, interrupted or failed.
            error: why it failed, in a line.
            stopped: why it is complete before its last planned round; empty if it is not.
        """
        figures = self._scores.document(self._config.get("mean_last_rounds"))
        for when in ("final", "mean_last_5", "mean_last_rounds"):
            for part, value in self._about.get("majority_baseline", {}).items():
                if part in figures.get(when, {}):
                    figures[when][part]["majority_baseline"] = value
        ended = {"stopped": stopped} if stopped else {}
        return {"status": status, "error": error, **figures, **self._about, **ended, **memory()}

    @property
    def rounds(self) -> int:
        """How many rounds are recorded."""
        return self._scores.rounds

    def _checkpoint(self, state: ServerState) -> None:
        """Save the state where it is due, and where it is the best on validation."""
        best = self._scores.best_round(self._config["objective"]) == state.round
        due = state.round % self._config["checkpoint_every"] == 0
        due = due or state.round == self._config["rounds"]
        self._unsaved = state
        if best or due:
            self._save(state, best, due)
        self._forget_client_states(state)

    def _save(self, state: ServerState, best: bool, due: bool) -> None:
        """Write a checkpoint; where it is due the model too, and keep the newest two."""
        folder = self.folder / "checkpoints"
        files = self.client_states.files(state.clients)
        content = self._content(state)
        path, best_path = folder / f"round-{state.round:06d}.pt", folder / "best.pt"
        self._needed |= dict.fromkeys(
            [p.name for p in (path, best_path)][not due : 1 + best], files
        )
        if due:
            self._write_model(state)  # before: once the checkpoint is there, nothing is done again
            write_atomically(path, content, also=[best_path] if best else [])
            remove_old_checkpoints(folder, KEPT_CHECKPOINTS)
            self._unsaved = None
        else:
            write_atomically(best_path, content)
        if best:
            best_path.with_suffix(".json").unlink(missing_ok=True)  # of an older version

    def _look_up_needed(self, checkpoints: Path) -> None:
        """See which client files the checkpoints need, where clients keep anything."""
        paths = checkpoints.glob("*.pt") if self.client_states.folder.is_dir() else ()
        for path in paths:
            try:
                checkpoint = read_checkpoint(path, accepted_hashes(self._config))
            except Unreadable:
                continue
            self._needed[path.name] = checkpoint.client_files

    def _forget_client_states(self, state: ServerState) -> None:
        """Remove what neither a checkpoint nor `state` needs."""
        if not self.client_states.folder.is_dir():
            return
        there = {path.name for path in (self.folder / "checkpoints").glob("*.pt")}
        needed = {round for name in there for round in self._needed.get(name, ())}
        self.client_states.keep_only(needed | self.client_states.files(state.clients).keys())

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Have the growing files hold the rounds up to the checkpoint, and read those back."""
        round = checkpoint.state.round
        if checkpoint.carried is None:
            self._take_over(round)
        else:
            for one in (self._shared, self._clients):
                one.restore(checkpoint.carried[one.path.name])
            if confusion := checkpoint.carried[CONFUSION].end:
                self._confusion = confusion
                write_atomically(self.folder / CONFUSION, confusion, durable=False)
        (self.folder / OLD).unlink(missing_ok=True)
        path = self.folder / "timing.jsonl"
        timing = [t for t in read_lines(path) if checked(t, TIMING, path)["round"] <= round]
        lines = "".join(json.dumps(t) + "\n" for t in timing)
        write_atomically(path, lines.encode(), durable=False)
        rows = shared_rows(self.folder)
        self.recorded, self._scores = Recorded(self.folder, round, rows), Scores()
        seconds = {t["round"]: t for t in timing}
        for number, of_round in groupby(rows, key=lambda row: row.round):
            phases = {k: v for k, v in seconds.get(number, {}).items() if k != "round"}
            self._scores.add(tuple(of_round), sum(phases.values()), phases.get("train", 0.0))

    def _take_over(self, round: int) -> None:
        """Write the record of an older version, up to `round`, as this one does."""
        rows: Iterable[Metric] = shared_rows(self.folder)
        if not (self.folder / OLD).exists():  # it was taken over, and its checkpoint stayed
            rows = Recorded(self.folder, round, list(rows))
        shared, single = split([row for row in rows if row.round <= round])
        frames = [frame(r, list(of_r)) for r, of_r in groupby(single, key=lambda row: row.round)]
        self._clients.begin(b"".join(frames), durable=True)
        self._shared.begin(as_csv(shared, header=True), durable=True)

    def _write_model(self, state: ServerState) -> None:
        content = self._weights(state.params)
        write_atomically(self.folder / "model.safetensors", content, durable=False)

    @cached_property
    def _flat(self) -> FlatModel:
        """One for all rounds: to copy the architecture takes longer than to write its weights."""
        return FlatModel(self._model, torch.device("cpu"))

    def _weights(self, params: Tensor) -> bytes:
        from safetensors.torch import save

        params = params.cpu()
        if params.dim() == 1:
            return bytes(save(dict(self._flat.state_dict_of(params))))
        models = map(self._flat.state_dict_of, params)
        return bytes(
            save({f"client{k}.{n}": t for k, m in enumerate(models) for n, t in m.items()})
        )

    def _table(self, matrix: np.ndarray) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self._class_names, *matrix.tolist()])
        return text.getvalue().encode()
