"""A process that dies right after any of its writes, and is resumed, ends with what it would have.

A kill between two files that depend on each other is met by chance in one run of a thousand; here
the process "dies" after a chosen write.
"""

import os

import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import assert_same_bits

pytestmark = pytest.mark.usefixtures("without_pictures")
RUN = ("run", "rounds=2", "training.epochs=1", "quiet=true", "backend=in_process")


class Died(BaseException):
    """What no handler catches, as nothing runs after a SIGKILL."""


@pytest.fixture
def whole(here):
    assert run_command([*RUN, "hydra.run.dir=whole"]) == 0
    return here / "whole"


def _die_after(monkeypatch, is_the_one):
    """Let this process die as soon as a file is in its place of which `is_the_one(path)` holds."""
    replace = os.replace

    def replace_and_die(source, target):
        replace(source, target)
        if is_the_one(os.fspath(target)):
            raise Died

    monkeypatch.setattr(os, "replace", replace_and_die)


def _check_resumed(monkeypatch, here, whole, is_the_one):
    """Whether the run died; it has to be the whole one's equal afterwards."""
    with monkeypatch.context() as patch:
        _die_after(patch, is_the_one)
        try:
            assert run_command([*RUN, "hydra.run.dir=run"]) == 0
        except Died:
            pass
        else:
            return False
    if (here / "run" / "config.yaml").exists():
        assert run_command(["resume", "run"]) == 0
        assert_same_bits(here / "run", whole)
    return True


def test_the_model_is_that_of_the_last_checkpoint(here, whole, monkeypatch):
    def last_checkpoint(path):
        return path.endswith("checkpoints/round-000002.pt")

    assert _check_resumed(monkeypatch, here, whole, last_checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(4))
def test_after_any_file(tmp_path, here, whole, monkeypatch, first):
    nth, died = first, True
    while died:
        left = nth

        def count_down(path):
            nonlocal left
            left -= 1
            return left < 0

        place = here / str(nth)
        place.mkdir()
        monkeypatch.chdir(place)
        died = _check_resumed(monkeypatch, place, whole, count_down)
        nth += 4
    assert nth > 12, "the run writes fewer files than it did"
