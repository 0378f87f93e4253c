"""Work by copies of a process: the same answers, and nobody who outlives it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from fedexp.core.copies import Copy, by_copies
from fedexp.core.cores import can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system cannot fork safely")

# Two copies note who they are and take a fifth of a second for an item: two minutes for all.
SLEEPS = """
import os, sys, time
from pathlib import Path
from fedexp.core.copies import by_copies
from fedexp.core.interrupt import endings_as_interrupts

def work(number):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(0.2)

with endings_as_interrupts():
    list(by_copies(work, range(1200), 2))
"""


KEEPS = SLEEPS.replace(
    "list(by_copies(work, range(1200), 2))",
    "copy = Copy(work); [(copy.send(n), copy.answer()) for n in range(600)]",
).replace("import by_copies", "import Copy")


def double(number):
    return 2 * number


def fails_at_seven(number):
    if number == 7:
        raise ValueError("seven")
    return number


def test_the_answers_in_order():
    assert list(by_copies(double, range(21), 2)) == [2 * n for n in range(21)]


def test_an_error_is_raised_where_its_answer_would_be():
    answers = by_copies(fails_at_seven, range(50), 2)
    assert [next(answers) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(answers)


def alive(pid):
    """Whether a process runs; one that has ended and waits for its parent's look does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, seconds=60):
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
@pytest.mark.parametrize(("script", "copies_made"), [(SLEEPS, 2), (KEEPS, 1)], ids=["pool", "one"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nobody_outlives_it(number, script, copies_made, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.DEVNULL
    )
    try:
        assert until(lambda: len(list(tmp_path.iterdir())) == copies_made)
        os.kill(process.pid, number)
        process.wait(timeout=60)
        copies = [int(path.name) for path in tmp_path.iterdir()]
        assert until(lambda: not any(map(alive, copies))), "copies work on"
    finally:
        process.kill()


class Interrupting(Sequence):
    """Twenty items; with the fifth comes a Ctrl-C."""

    def __init__(self):
        self.handed_out = 0

    def __len__(self):
        return 20

    def __getitem__(self, place):
        if place >= len(self):
            raise IndexError(place)
        if place == 4:
            os.kill(os.getpid(), signal.SIGINT)
        self.handed_out += 1
        return place


def test_an_interrupt_waits_until_the_pool_has_its_work():
    """In the middle of it, it could leave a lock of the pool's taken: nobody would ever end."""
    items = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        list(by_copies(abs, items, 2))
    assert items.handed_out == len(items)


def test_a_copy_keeps_what_it_works_with():
    seen = []

    def count(item):
        seen.append(item)
        if item is None:
            raise ValueError("nothing")
        return len(seen)

    with closing(Copy(count)) as copy:
        for item, answer in (("a", 1), ("b", 2)):
            copy.send(item)
            assert copy.answer() == answer
        copy.send(None)
        with pytest.raises(ValueError, match="nothing"):
            copy.answer()
        copy.send("c")
        assert copy.answer() == 4
    assert not seen, "this process has a list of its own"


def test_a_copy_that_is_gone_is_said():
    with closing(Copy(lambda item: os.kill(os.getpid(), signal.SIGKILL))) as copy:
        copy.send(1)
        with pytest.raises(ChildProcessError, match=r"exit code -9"):
            copy.answer()


def test_a_copy_that_was_gone_before_it_is_asked_is_said():
    """A broken pipe would be taken for the reader of what the command prints."""
    with closing(Copy(lambda item: os.getpid())) as copy:
        copy.send(1)
        os.kill(pid := copy.answer(), signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ChildProcessError, match=r"exit code -9"):
            copy.send(2)


def test_a_copy_that_is_killed_before_it_has_read_is_said():
    with closing(Copy(lambda item: os.getpid())) as copy:
        copy.send(1)
        os.kill(pid := copy.answer(), signal.SIGSTOP)
        copy.send(2)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=r"exit code -9"):
            copy.answer()
