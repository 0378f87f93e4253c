"""What an observer of one's own answers, or fails at, leaves a folder that can be read."""

import pytest

from fedexp.commands.execution import _end, _first
from fedexp.core.checks import InputError


class Observer:
    def __init__(self, fails=None):
        self.fails, self.told = fails, []

    def run_ended(self, summary):
        if self.fails:
            raise self.fails
        self.told.append(summary["status"])


def test_a_reason_to_stop_is_a_line():
    answers = [(Observer(), None), (Observer(), "two\nlines"), (Observer(), "later")]
    assert _first(answers) == "two lines"
    assert _first([(Observer(), None), (Observer(), "")]) == ""


@pytest.mark.parametrize("answer", [3, True, ["enough"]])
def test_what_is_no_reason_is_refused_by_name(answer):
    """A summary that held it could not be read."""
    with pytest.raises(InputError, match=r"^observer=\S*Observer: must answer with why the run "):
        _first([(Observer(), answer)])


@pytest.mark.parametrize("status", ["complete", "failed"])
def test_everybody_is_told_of_the_end_whoever_fails_at_it(status):
    others = [Observer(), Observer()]
    observers = [others[0], Observer(ZeroDivisionError("by zero")), others[1]]
    if status == "complete":
        with pytest.raises(InputError, match="ZeroDivisionError: by zero"):
            _end(observers, {"status": status})
    else:  # what has ended the run is told of, and not hidden by that
        _end(observers, {"status": status})
    assert [observer.told for observer in others] == [[status], [status]]
