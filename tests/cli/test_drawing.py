"""A run's report from a process beside it: the same files, and none the less where it goes away."""

import json
import os
import re
import signal
import subprocess
import sys
from multiprocessing import Pipe, active_children
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from fedexp.commands.drawing import drawing
from fedexp.core.plots import Plots
from fedexp.reporting.apart import write_reports
from tests.support.run_folders import write_run

PICTURES = {"loss.png", "accuracy.png", "confusion_matrix.png", "curves.png"}


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not drawn yet, with a second core."""
    monkeypatch.setattr("fedexp.commands.drawing.sys", SimpleNamespace(modules={}))
    monkeypatch.setattr("fedexp.commands.drawing.cores_to_spare", lambda: 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", rounds=2, n_clients=2, class_names=("no", "yes"))


def test_a_run_imports_neither_pictures_nor_tables_and_leaves_both(tmp_path: Path) -> None:
    code = (
        "import json, sys; from fedexp.core import cores; cores._asked_once = lambda: 2; "
        "from fedexp.cli import main; "
        f"main(['run', 'rounds=1', 'store=none', 'hydra.run.dir={tmp_path / 'run'}']); "
        "print(json.dumps([name in sys.modules for name in ('matplotlib', 'pandas')]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout.splitlines()[-1]) == [False, False]
    assert "Report:" in answer.stdout
    assert (tmp_path / "run" / "report.md").exists()
    assert {path.name for path in (tmp_path / "run" / "plots").iterdir()} >= PICTURES


def test_both_write_the_same_report(beside: None, real_pictures: None, folder: Path) -> None:
    with drawing(Plots()) as draw:
        assert active_children()
        text, page = draw(folder, Plots()), (folder / "report.md").read_text()
        pictures = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    with drawing(Plots(draw=False)) as draw:  # in this process
        assert draw(folder, Plots()) == text
    assert (folder / "report.md").read_text() == page
    assert {path.name: path.read_bytes() for path in (folder / "plots").iterdir()} == pictures


def test_the_report_is_written_here_when_its_process_has_gone(beside: None, folder: Path) -> None:
    with drawing(Plots()) as draw:
        (writer,) = active_children()
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert "Report:" in draw(folder, Plots())
    assert (folder / "plots" / "loss.png").exists()


def test_what_is_amiss_is_told_by_who_asked(
    beside: None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "plots").write_text("in the way")
    with drawing(Plots()) as draw:
        assert "loss" in draw(folder, Plots())
    assert f"cannot write to {folder}" in caplog.text


def test_its_process_ends_with_the_block(beside: None) -> None:
    with drawing(Plots()):
        (writer,) = active_children()
    writer.join(30)
    assert writer.exitcode == 0


def test_there_is_none_where_no_process_can_be_had(
    beside: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(process: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", none_left)
    with drawing(Plots()) as draw:
        assert "Report:" in draw(folder, Plots())


def test_an_error_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("fedexp.reporting.apart.os._exit", ended.append)
    ours, theirs = Pipe()
    thread = Thread(target=write_reports, args=(theirs,))
    thread.start()
    ours.send((tmp_path / "nowhere", Plots()))
    assert ours.recv() is None
    ours.close()
    thread.join(30)
    assert ended == [0]


def test_one_core_draws_itself(beside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedexp.commands.drawing.cores_to_spare", lambda: 1)
    before = {*active_children()}
    with drawing(Plots()):
        assert {*active_children()} == before


SIGNALS = """
import multiprocessing, pathlib
from fedexp.commands import drawing
from fedexp.core.plots import Plots
drawing.cores_to_spare = lambda: 2
with drawing.drawing(Plots(True)):
    (writer,) = multiprocessing.active_children()
    print(pathlib.Path(f"/proc/{writer.pid}/status").read_text())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_writer_is_not_there_for_ctrl_c():
    """Alone in a process, as the first that it starts: it printed a traceback of its own."""
    told = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True)
    held_back = re.search(r"SigBlk:\s*(\w+)", told.stdout)
    assert held_back, told.stderr
    assert int(held_back[1], 16) >> (signal.SIGINT - 1) & 1
