"""Work by copies (forks) of this process, which never outlive it.

A copy has in memory what this process has: nothing is loaded twice, and little is sent. It has none
of its threads, and so must not compute with torch, which would wait for them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar, cast, final

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


@final
class Copy(Generic[Item, Answer]):
    """One copy, which keeps what it works with and answers items in their order until it is left.

    Args:
        function: what it answers with; it may keep what it likes, and nobody else has it.
    """

    def __init__(self, function: Callable[[Item], Answer]) -> None:
        forked = multiprocessing.get_context("fork")
        self._here, there = forked.Pipe()
        self._process = forked.Process(target=_answer, args=(function, there), daemon=True)
        # Python warns of threads whose locks a copy may find taken: it does nothing with them.
        with endings_put_off(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        there.close()

    def send(self, item: Item) -> None:
        """Ask; not again before the answer is fetched, or both may wait for the other to read.

        Raises:
            ChildProcessError: the copy is gone.
        """
        try:
            self._here.send(item)
        except (BrokenPipeError, ConnectionResetError):
            # A command takes the first for the reader of what it prints, and ends without a word.
            raise self._gone() from None

    def answer(self) -> Answer:
        """To the item that was sent.

        Raises:
            Exception: what the function raised.
            ChildProcessError: the copy is gone.
        """
        try:
            answer, error = self._here.recv()
        except (EOFError, ConnectionResetError):  # the latter: with an item that it had not read
            raise self._gone() from None
        if error is not None:
            raise error
        return cast(Answer, answer)

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._here.close()

    def _gone(self) -> ChildProcessError:
        self._process.join()
        return ChildProcessError(
            f"a copy of this process ended with exit code {self._process.exitcode} (a negative one "
            "is the signal that ended it; -9 is often the system, out of memory)"
        )


def _answer(function: Callable[[Any], Any], asked: Connection) -> None:
    _begin()
    while True:
        item = asked.recv()
        try:
            asked.send((function(item), None))
        except Exception as error:  # for who asks
            asked.send((None, error))


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
