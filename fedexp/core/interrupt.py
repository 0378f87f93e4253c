"""Signals that end a process, as an exception like Ctrl-C: what is under way is saved first.

SIGTERM is what `kill`, systems that shut down and job schedulers send; SIGHUP, a terminal that
closes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDINGS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)

heard: list[int] = []
"""The signals that have asked this process to end, in order.

A library may make another error of the exception that a signal raises; who asks here knows better.
"""


class Terminated(KeyboardInterrupt):
    """One of these signals: handled like Ctrl-C, with an exit code of its own.

    Attributes:
        exit_code: 128 + the signal's number, as shells count.
    """

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(signal.Signals(number).name)


@contextmanager
def endings_as_interrupts() -> Iterator[None]:
    """Raise Terminated at SIGTERM and SIGHUP; nothing outside of the main thread, which gets none.

    A signal that is ignored, as SIGHUP under `nohup`, stays so. SIGINT raises what it does, and is
    noted like the others.
    """

    def terminate(number: int, frame: object) -> None:
        heard.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDINGS}
    listened = {number for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in listened:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number in listened:
            signal.signal(number, before[number])


@contextmanager
def endings_put_off() -> Iterator[None]:
    """These signals come when the block is left, for what must not be broken off in the middle.

    By handlers and not by a mask, which is one thread's alone: the signal would come by another,
    and its exception be raised in this one all the same. Nothing outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in ENDINGS}
    listened = [n for n, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in listened:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number in listened:
            signal.signal(number, before[number])
        if came:
            signal.raise_signal(came[0])
