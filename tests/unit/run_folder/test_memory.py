"""Peaks of memory: of this process, and of the workers that are alive."""

import multiprocessing
import os
import sys
from types import SimpleNamespace

import pytest

from fedexp.run_folder.memory import memory


def test_without_workers_none_is_said_of_them(monkeypatch):
    monkeypatch.setattr(multiprocessing, "active_children", list)
    assert memory()["peak_memory_mb"] > 10
    assert memory()["peak_memory_of_a_worker_mb"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_of_workers_the_largest_counts_and_one_that_has_gone_does_not(monkeypatch):
    alive, gone = SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=2**30)
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [gone, alive])
    assert memory()["peak_memory_of_a_worker_mb"] > 10
