"""Independent pieces of work by copies (forks) of this process, which never outlive it.

A copy has in memory what this process has: nothing is loaded twice, and little is sent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from fedexp.core.interrupt import endings_put_off

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def by_copies(
    function: Callable[[Item], Answer], items: Sequence[Item], copies: int
) -> Iterator[Answer]:
    """`map(function, items)`, in that order.

    When this process is interrupted or does not want the rest, the copies finish what is in their
    hands, two items or three each, and end; when it is killed, they end in the middle of it.

    Args:
        function: at module level, so that it can be sent to a process.
        items: what it is called with.
        copies: how many, at least one, of a process that can fork (`cores.can_fork`).
    """
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(copies, mp_context=forked, initializer=_begin) as pool:
        try:
            # An exception in the middle of it could leave a lock of the pool's taken for ever.
            with endings_put_off():
                answers = pool.map(function, items)
            yield from answers
        finally:  # by itself it does all that it was given, before it lets go of its processes
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
