"""Worker processes of tests."""

import os
from multiprocessing import forkserver
from pathlib import Path

import pytest

from fedexp.backends import pool_worker, process_pool
from tests.support import workloads


@pytest.fixture
def quick_workers(monkeypatch):
    """The server that forks this test's workers has imported what they are given here too."""
    monkeypatch.setattr(process_pool, "PRELOADED", [pool_worker.__name__, workloads.__name__])


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
