"""The record for TensorBoard, in RUN/tensorboard: `tensorboard --logdir outputs` shows all runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any, final

from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.observers.series import by_round, figures, require

FOLDER = "tensorboard"


@final
class TensorBoard:
    """Writes scalars, and the config as text, with torch's own writer.

    Args:
        clients: write every single client's figures too.
    """

    def __init__(self, clients: bool) -> None:
        require("tensorboard")
        self._clients = clients

    def run_started(self, run: RunStart) -> None:
        """Start the file; a run that goes on gets a new one, from its record."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        config = json.dumps(run.config, indent=1, default=str)
        self._write("add_text", "config", f"```json\n{config}\n```")
        for number, values in by_round(run.recorded, self._clients):
            self._add(number, values)

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Add the round's figures."""
        self._add(record.round, figures(record.metrics, self._clients))

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Close the file."""
        self._write("close")

    def _add(self, round: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write("add_scalar", name, value, round)
        self._write("flush")

    def _write(self, method: str, *arguments: object) -> None:
        getattr(self._writer, method)(*arguments)  # whose methods have no types
