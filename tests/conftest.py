"""For all tests."""

import signal

import pytest
import torch

# A shell starts what it puts in the background with Ctrl-C ignored, and the processes that the
# tests start and interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in a run: the number of threads changes bits, and small work is slower on several."""
    torch.set_num_threads(1)
