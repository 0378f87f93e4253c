"""What a person sees while nothing has been trained yet."""

import os
import pty
import subprocess
import time

from tests.support.commands import FEDEXP

SMALL = ("rounds=1", "training.epochs=1", "plots=false", "hydra.run.dir=run")


def on_a_terminal(*overrides):
    """The first words, the seconds until then, and all that was said."""
    parent, child = pty.openpty()
    started = time.monotonic()
    with subprocess.Popen([*FEDEXP, "run", *overrides], stdout=child, stderr=child) as process:
        os.close(child)
        first = os.read(parent, 4096).decode()
        seconds = time.monotonic() - started
        said = first
        try:
            while piece := os.read(parent, 4096):
                said += piece.decode(errors="replace")
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    return first, seconds, said


def test_on_a_terminal_a_line_that_is_wiped_away(here):
    first, seconds, said = on_a_terminal(*SMALL)
    assert "preparing: libraries" in first
    assert seconds < 5  # a tenth of a second on a quiet machine
    assert "data, model and every part ...\r\x1b[2K" in said
    assert said.index("data, model") < said.index("round")
    assert "preparing: report ...\r\x1b[2K" in said
    assert said.index("preparing: report") < said.index("Status: complete")


def test_a_sweep_says_how_many_jobs_it_has_and_its_workers_prepare_in_silence(here):
    _, _, said = on_a_terminal("-m", "seed=0,1", *SMALL[:-1], "hydra.sweep.dir=sweep")
    assert "preparing: the settings of 2 jobs ...\r\x1b[2Kseed=" in said
    assert "data, model and every part" not in said


def test_piped_nothing_stands_on_stdout_and_bad_input_is_one_line(here):
    told = subprocess.run([*FEDEXP, "run", "rounds=0"], capture_output=True, text=True)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "rounds" in told.stderr
    assert told.stdout == ""
