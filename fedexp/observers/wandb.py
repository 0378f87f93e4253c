"""The record for Weights & Biases, by default offline in RUN/wandb: `wandb sync` sends it later."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from typing import Any, Literal, final

from fedexp.core.checks import one_of
from fedexp.core.environment import environment
from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.observers.series import by_round, figures, require

FOLDER = "wandb"
# Else they lie in the user's home.
PLACES = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")


@final
class WandB:
    """Logs every round's figures and the config.

    Args:
        mode: "offline" writes files and needs neither network nor account; "online" sends.
        project: the runs' group.
        clients: write every single client's figures too.
    """

    def __init__(self, mode: Literal["offline", "online"], project: str, clients: bool) -> None:
        require("wandb")
        one_of(("offline", "online"), mode=mode)
        self._mode, self._project, self._clients = mode, project, clients

    @property
    def sends_to(self) -> str:
        """The service, where it is online."""
        return "wandb" if self._mode == "online" else ""

    def run_started(self, run: RunStart) -> None:
        """Start a run; one that goes on is written anew from its record, under the same id."""
        here = run.folder.resolve()
        shutil.rmtree(here / FOLDER, ignore_errors=True)
        with environment(dict.fromkeys(PLACES, str(here / FOLDER))):
            import wandb

            self._run: Any = wandb.init(
                project=self._project,
                name=run.folder.name,
                id=hashlib.sha256(str(here).encode()).hexdigest()[:16],
                resume="allow",
                dir=str(here),
                config=dict(run.config),
                mode=self._mode,
                reinit="create_new",  # leaves alone a run that the caller may have open
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_git=True,
                    disable_code=True,
                    x_disable_stats=True,
                    x_disable_meta=True,
                ),
            )
        for number, values in by_round(run.recorded, self._clients):
            self._run.log(values, step=number)

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Log the round's figures."""
        self._run.log(figures(record.metrics, self._clients), step=record.round)

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Finish the run."""
        self._run.finish(exit_code=0 if summary["status"] == "complete" else 1)
