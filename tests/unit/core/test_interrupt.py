"""Signals that end a process."""

import os
import signal
import threading

import pytest

from fedexp.core.interrupt import Terminated, endings_as_interrupts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_it_is_an_interrupt_with_an_exit_code_of_its_own(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as end, endings_as_interrupts():
        os.kill(os.getpid(), number)
    assert end.value.exit_code == code
    assert isinstance(end.value, KeyboardInterrupt)
    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_so(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with endings_as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_nothing_is_changed():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def look():
        with endings_as_interrupts():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert inside == [before]
