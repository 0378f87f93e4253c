"""Environment variables that hold for a while."""

import os

from fedexp.core.environment import environment


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("THERE", "before")
    monkeypatch.delenv("NOT_THERE", raising=False)
    with environment({"THERE": "x", "NOT_THERE": "y"}):
        assert (os.environ["THERE"], os.environ["NOT_THERE"]) == ("before", "y")
    assert os.environ["THERE"] == "before"
    assert "NOT_THERE" not in os.environ
