"""What the files of this folder share."""

import pytest

from tests.support.workers import live_workers


@pytest.fixture
def new_children():
    """The live pool workers that were not there before the test."""
    before = live_workers()
    return lambda: [pid for pid in live_workers() if pid not in before]
