"""Ray in this process: its library without its words, and a cluster that is started or joined.

A cluster that starts here serves this run alone: on this machine's own address, with a secret that
no other process knows, from a folder that goes with it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from fedexp.core.checks import InputError
from fedexp.core.environment import environment

LONGEST_FOLDER = 40  # letters; a socket's path, which Ray makes 60 longer, may have 107
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would call home
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns that this will be so
}
# Ray's workers stand back (niceness 15) behind whatever else the machine does; a pool's do not.
OWN = {"RAY_worker_niceness": "0"}
SAID_NOTHING = {"logging_level": logging.ERROR, "log_to_driver": False}


def library() -> Any:
    """The library; raises InputError where it is not installed."""
    with quiet(), handlers_kept():
        try:
            import ray
        except ImportError:
            reason = "needs Ray, which is not installed: pip install 'fedexp[ray]'"
            raise InputError(reason, "backend", "ray") from None
    return ray


def join(ray: Any, address: str) -> None:
    """Join a cluster that runs."""
    _knock(address)
    ray.init(address=address, configure_logging=False, **SAID_NOTHING)


def start(ray: Any, folder: str, workers: int, store: int) -> None:
    """Start a cluster on this machine, which nobody else can join.

    Args:
        ray: the library.
        folder: for its sockets and logs.
        workers: with one CPU each.
        store: bytes of its object store.
    """
    # Ray would write what lets a process join into the home folder.
    with environment({**OWN, "RAY_AUTH_TOKEN": _token()}):
        ray.init(
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=store,
            configure_logging=False,
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",  # no other machine reaches it, and Ray asks none
            **SAID_NOTHING,
        )


def short_folder() -> str:
    """A new folder for Ray's sockets and logs, wherever there is room for one."""
    usual = tempfile.gettempdir()
    places = [usual, "/tmp"] if len(usual) <= LONGEST_FOLDER else ["/tmp"]
    for place in places:
        with suppress(OSError):
            return tempfile.mkdtemp(prefix="fedexp-ray-", dir=place)
    raise OSError(f"no folder for Ray could be made in {' or '.join(places)}")


@contextmanager
def quiet() -> Iterator[None]:
    """Ray without its counting of users and its words."""
    chatter = logging.getLogger("ray")
    before = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with environment(QUIET):
            yield
    finally:
        chatter.setLevel(before)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Ray takes over how this process ends; that is not its business."""
    here = threading.current_thread() is threading.main_thread()
    before, hook = signal.getsignal(signal.SIGTERM), sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        if here:
            signal.signal(signal.SIGTERM, before)


def cpus(ray: Any) -> int:
    """Of all nodes, as they are now."""
    return int(ray.cluster_resources().get("CPU", 0))


def alive(ray: Any) -> list[Mapping[str, Any]]:
    """The nodes that are."""
    return [node for node in ray.nodes() if node["Alive"]]


def refuse_an_empty_cluster(ray: Any) -> None:
    """Raise ChildProcessError where nobody can do anything."""
    if cpus(ray) < 1:
        raise ChildProcessError("no node of the Ray cluster has a CPU, or none is left")


def refuse_small_stores(ray: Any, needed: int) -> None:
    """Raise InputError for a node that cannot hold so many bytes."""
    for node in alive(ray):
        there = int(node["Resources"].get("object_store_memory", 0))
        if needed > there:
            raise InputError(
                f"the data are {needed / 2**20:.0f} MB and the object store of the node "
                f"{node['NodeManagerHostname']} has {there / 2**20:.0f}; use a larger "
                "backend.store_mb, or `ray start --object-store-memory`",
                "backend",
                "ray",
            )


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at host:port; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@cache
def _token() -> str:
    """What lets a process join a cluster of this one's."""
    return os.urandom(32).hex()
