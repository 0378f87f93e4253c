"""Signals that end a process, as an exception like Ctrl-C: what is under way is saved first.

SIGTERM is what `kill`, systems that shut down and job schedulers send; SIGHUP, a terminal that
closes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
    names = [
        name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]  # Windows has one
    before = {number: signal.getsignal(number) for number in (getattr(signal, n) for n in names)}
    listened = {number for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in listened:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number in listened:
            signal.signal(number, before[number])
