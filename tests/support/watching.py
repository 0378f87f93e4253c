"""Observers to put into a run, and rounds to show to one."""

from collections.abc import Mapping

import torch

from fedexp.core.metric import Metric
from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord, ServerState


def round_of(number: int, **validation: float) -> tuple[ServerState, RoundRecord]:
    """A round that measured something on validation, as observers are told of it."""
    rows = tuple(Metric(number, "validation", "all", k, v) for k, v in validation.items())
    record = RoundRecord(number, rows, None, {"train": 1.0})
    return ServerState(number, torch.zeros(3)), record


def start_of(folder, config: Mapping | None = None, done: int = 0, recorded=()) -> RunStart:
    """What observers are told at first."""
    return RunStart(config or {}, folder, {}, ServerState(done, torch.zeros(3)), recorded)


class Broken:
    """A tracker, to be built from a config, that fails at one point."""

    def __init__(self, at: str) -> None:
        self.at = at

    def run_started(self, run) -> None:
        self._fail("start")

    def round_done(self, state, record) -> None:
        self._fail("round")

    def run_ended(self, summary) -> None:
        self._fail("end")

    def _fail(self, where: str) -> None:
        if where == self.at:
            raise OSError(28, "No space left on the tracker")


class Writes:
    """An observer that writes to whatever it is shown."""

    def __init__(self, metrics=()) -> None:
        pass

    def run_started(self, run) -> None:
        run.config["rounds"] = 99
        run.about["privacy"] = "everything is safe"
        self._write(run.state)

    def round_done(self, state, record) -> None:
        self._write(state)

    def run_ended(self, summary) -> None:
        summary["rounds"] = 99

    def _write(self, state) -> None:
        state.params.numpy()[:] = 0
        for tensor in state.optimizer.values():
            tensor.zero_()
