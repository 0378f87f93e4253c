"""For all tests."""

import gc
import math
import os
import signal

import pytest
import torch
from threadpoolctl import threadpool_limits

import fedexp.reporting  # noqa: F401 - names matplotlib's folder before anybody imports it
from tests.support import listed_as_slow, remembered_configs, remembered_divergences
from tests.support.workers import quick_workers  # noqa: F401 - a fixture for everybody

# A shell starts what it puts in the background with Ctrl-C ignored, and the processes that the
# tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
remembered_configs.install()
gc.disable()  # until all is collected: a third of that time went into looking for garbage


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, a worker gets neighbouring tests: what a module's fixtures made is made once."""
    if config.getoption("dist") == "load":  # the default
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)
    return None


def pytest_addoption(parser) -> None:
    parser.addoption("--also-listed", action="store_true", help="run what tests/slow.txt lists too")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items) -> None:
    config.stash[listed_as_slow.COLLECTED] = frozenset(item.nodeid for item in items)
    if not config.getoption("--also-listed"):
        listed_as_slow.mark(items)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    remembered_divergences.install_once_imported()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in a run: the number of threads changes bits, and small work is slower on several."""
    torch.set_num_threads(1)
    with threadpool_limits(1):  # NumPy's and SciPy's linear algebra
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pool_because_the_machine_is_busy():
    """Which backend a test runs on is the test's choice, not that of what else runs here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedexp.backends.auto.PAYS_AFTER", math.inf)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """No test pulls the plug: what it would lose need not be on the disk before the next write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
