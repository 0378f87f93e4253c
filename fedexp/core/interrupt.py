"""SIGTERM as an exception, like Ctrl-C: what is under way is saved and workers are ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled like Ctrl-C, with an exit code of its own."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise Terminated at a SIGTERM; does nothing outside of the main thread, which gets none."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
