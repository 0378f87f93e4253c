"""The record for MLflow: by default a store of files in RUN/mlruns, which needs no server.

`mlflow ui --backend-store-uri RUN/mlruns` shows it. With `tracking_uri` many runs share one store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, final

from fedexp.core.environment import environment
from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord, ServerState
from fedexp.observers.series import by_round, figures, leaves, require

FOLDER = "mlruns"
FOLDER_TAG = "fedexp.folder"
MOST_PARAMETERS, LONGEST = 100, 6000  # MLflow's limits, a call and a value
# MLflow counts its users over the network, and keeps a note of that in their home.
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# Files are a store in maintenance; MLflow wants to be told that they are meant.
FILES = {"MLFLOW_ALLOW_FILE_STORE": "true"}


@final
class MLflow:
    """Writes metrics, and the config as parameters and as the artifact config.json.

    Args:
        tracking_uri: the store: a server, a database or `file:`; None is RUN/mlruns.
        experiment: the runs' group in it.
        clients: write every single client's figures too.
    """

    def __init__(self, tracking_uri: str | None, experiment: str, clients: bool) -> None:
        require("mlflow")
        self._uri, self._experiment, self._clients = tracking_uri, experiment, clients

    @property
    def sends_to(self) -> str:
        """The store, where it is not the one in the run folder."""
        return self._uri or ""

    def run_started(self, run: RunStart) -> None:
        """Start a run in the store; a run that goes on takes the place of its earlier part."""
        with environment({**QUIET, **FILES}):
            from mlflow.entities import Param
            from mlflow.tracking import MlflowClient

            uri = self._uri or (run.folder.resolve() / FOLDER).as_uri()
            self._client: Any = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(self._experiment)
            where = (
                found.experiment_id if found else self._client.create_experiment(self._experiment)
            )
            here = str(run.folder.resolve())
            for old in self._client.search_runs([where], f"tags.`{FOLDER_TAG}` = '{here}'"):
                self._client.delete_run(old.info.run_id)
            started = self._client.create_run(
                where, run_name=run.folder.name, tags={FOLDER_TAG: here}
            )
            self._run: str = started.info.run_id
            parameters = iter(leaves(run.config).items())
            while some := list(islice(parameters, MOST_PARAMETERS)):
                # A slash would make a folder of a name that is a file already.
                params = [Param(k.replace("/", "."), str(v)[:LONGEST]) for k, v in some]
                self._client.log_batch(self._run, params=params)
            self._client.log_dict(self._run, dict(run.config), "config.json")
        for number, values in by_round(run.recorded, self._clients):
            self._add(number, values)

    def round_done(self, state: ServerState, record: RoundRecord) -> None:
        """Add the round's figures."""
        self._add(record.round, figures(record.metrics, self._clients))

    def run_ended(self, summary: Mapping[str, Any]) -> None:
        """Close the run in the store."""
        words = {"complete": "FINISHED", "interrupted": "KILLED"}
        self._client.set_terminated(self._run, words.get(str(summary["status"]), "FAILED"))

    def _add(self, round: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = iter([Metric(name, value, now, round) for name, value in values.items()])
        while some := list(islice(metrics, 1000)):  # MLflow's limit
            self._client.log_batch(self._run, metrics=some)
