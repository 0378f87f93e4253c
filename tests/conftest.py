"""For all tests."""

import gc
import os
import signal

import pytest
import torch

import fedexp.reporting  # noqa: F401 - names matplotlib's folder before anybody imports it
from tests.support import remembered_configs, remembered_divergences

# A shell starts what it puts in the background with Ctrl-C ignored, and the processes that the
# tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
remembered_configs.install()


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    remembered_divergences.install_once_imported()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in a run: the number of threads changes bits, and small work is slower on several."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """No test pulls the plug: what it would lose need not be on the disk before the next write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
