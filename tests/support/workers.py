"""Worker processes for tests that are not about how one starts.

A pool's workers are spawned: each imports torch, which takes seconds. These are forked from a
process that has imported it; what they do is the same.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def quick_workers(monkeypatch):
    """The workers that pools start in this test start at once."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["fedexp.backends.process_pool", "tests.support.workloads"])
    pools = SimpleNamespace(get_context=lambda method: server)
    monkeypatch.setattr("fedexp.backends.process_pool.multiprocessing", pools)


def live_workers() -> list[int]:
    """The live processes below this one that are pool workers, spawned or forked."""
    ours = [
        pid
        for pid in _children(os.getpid())
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    server = forkserver._forkserver._forkserver_pid
    forked = _children(server) if server is not None and is_alive(server) else []
    return [pid for pid in (*ours, *forked) if is_alive(pid)]


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; a zombie only waits to be counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
