"""A tracker that fails is named once, and left alone."""

import logging

import pytest

from fedexp.observers.guarded import Guarded
from tests.support.watching import Broken, round_of, start_of


class Counting(Broken):
    def __init__(self, at):
        super().__init__(at)
        self.told = []

    def _fail(self, where):
        self.told.append(where)
        super()._fail(where)


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("start", ["start"]),
        ("round", ["start", "round"]),
        ("end", ["start", "round", "round", "end"]),
        ("never", ["start", "round", "round", "end"]),
    ],
)
def test_it_is_told_until_it_fails(caplog, tmp_path, at, told):
    tracker = Counting(at)
    guarded = Guarded("mine", tracker)
    with caplog.at_level(logging.WARNING, logger="fedexp"):
        guarded.run_started(start_of(tmp_path))
        guarded.round_done(*round_of(1))
        guarded.round_done(*round_of(2))
        guarded.run_ended({"status": "complete"})
    assert tracker.told == told
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == (at != "never")
    for warning in warnings:
        assert "tracker=mine has failed" in warning
        assert "No space left on the tracker" in warning


def test_what_it_says_about_stopping_is_not_heard():
    class Opinionated(Broken):
        def round_done(self, state, record):
            return "stop, says the tracker"

    assert Guarded("mine", Opinionated("never")).round_done(*round_of(1)) is None


def test_ctrl_c_is_no_failure_of_the_tracker():
    class Interrupted(Broken):
        def round_done(self, state, record):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("mine", Interrupted("never")).round_done(*round_of(1))
