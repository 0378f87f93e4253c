"""How worker processes are started: from what (see `process_pool`), and under which signals."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any, final

import numpy as np
import torch
import torch.multiprocessing as multiprocessing

BEGINS_WITHIN = 5.0  # seconds in which a thread that was started begins
FIRST_START = 3.0  # seconds, before one was measured in this process


@final
class Launch:
    """A start of workers, in a thread: it waits, for a process that imports, most of the time."""

    seconds = FIRST_START  # that the latest one in this process took

    def __init__(self, launch: Callable[..., None], *arguments: Any) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(launch, *arguments), daemon=True)
        self._begun, self._done = threading.Event(), threading.Event()

    def begin(self) -> None:
        """Apart from making it: a signal that raises in here finds a launch that can be joined."""
        self._thread.start()

    def _run(self, launch: Callable[..., None], *arguments: Any) -> None:
        self._begun.set()
        started = time.perf_counter()
        try:
            launch(*arguments)
            Launch.seconds = time.perf_counter() - started
        except BaseException as error:  # for who asks for the result
            self._error = error
        finally:
            self._done.set()

    def is_alive(self) -> bool:
        """Whether it has not come to its end."""
        return not self._done.is_set()

    def join(self) -> None:
        """Wait for its end."""
        if self._begun.wait(BEGINS_WITHIN):
            self._done.wait()

    def result(self) -> None:
        """Raise what went wrong."""
        if isinstance(self._error, ChildProcessError):
            raise self._error
        if self._error is not None:
            raise ChildProcessError(
                f"worker processes do not start: {self._error}"
            ) from self._error


def seconds_to_start() -> float:
    """How long a pool takes to start: measured, once one has started in this process."""
    return Launch.seconds


def context_that_preloads(modules: Sequence[str]) -> Any:
    """What makes processes; the server that they are forked from, if any, imports `modules`."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules])
    have_a_tracker()
    with signals_held_back(), _nothing_of_this_folder():
        forkserver.ensure_running()
    return context


def have_a_tracker() -> None:
    """Before signals are held back: the first process starts it, and it lets Ctrl-C through again.

    It ignores Ctrl-C itself, and has to be kept from a closed terminal alone.
    """
    if hasattr(signal, "pthread_sigmask"):
        with _held_back(signal.SIGHUP):
            resource_tracker.ensure_running()


def _forget_the_server() -> None:
    """A copy of this process starts one of its own: this one's is no child of the copy."""
    forkserver._forkserver._forkserver_pid = None  # type: ignore[attr-defined]


if sys.platform == "linux":
    os.register_at_fork(after_in_child=_forget_the_server)


@contextmanager
def _nothing_of_this_folder() -> Iterator[None]:
    """The server imports by name, and a file of that name may lie in the current folder."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def main_left_out(*parts: object) -> Iterator[None]:
    """Workers begin with the main module of who starts them: a script would run again in each.

    It is left to them where they could not read `parts` without it.
    """
    main = sys.modules["__main__"]
    names = ("__spec__", "__file__")
    before = {name: vars(main)[name] for name in names if name in vars(main)}
    if not _are_of_main(parts):
        vars(main).update(__spec__=None, __file__=None)
    try:
        yield
    finally:
        for name in names:
            vars(main).pop(name, None)
        vars(main).update(before)


def refuse_what_cannot_be_sent(part: object) -> None:
    """Raise what is raised where `part` is sent to a worker: at the start, where a run goes on."""
    _WithoutArrays(io.BytesIO()).dump(part)


def _are_of_main(parts: object) -> bool:
    """Whether anything in them is made of a class that a script defines."""
    content = io.BytesIO()
    try:
        _WithoutArrays(content).dump(parts)
    except Exception:  # whatever a part of somebody else's raises; the start will say it
        return True
    return b"__main__" in content.getvalue()


class _WithoutArrays(pickle.Pickler):
    """For a look at what else there is."""

    def persistent_id(self, obj: object) -> str | None:
        """A word in the place of an array."""
        return "array" if isinstance(obj, torch.Tensor | np.ndarray) else None


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Ctrl-C and a closed terminal go to all its processes and are the parent's to handle.

    The server and the workers inherit that they are blocked, from their first instruction on; here
    they are held back only.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows, where workers ignore them
        yield
        return
    with _held_back(signal.SIGINT, signal.SIGHUP):
        yield


@contextmanager
def _held_back(*signals: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
