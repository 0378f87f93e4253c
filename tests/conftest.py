"""For all tests."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As in a run: the number of threads changes bits, and small work is slower on several."""
    torch.set_num_threads(1)
