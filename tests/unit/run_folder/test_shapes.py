"""What a run wrote is taken for it."""

import pytest

from fedexp.core.checks import InputError
from fedexp.run_folder.shapes import CONFIG, checked


def test_a_seed_may_be_of_any_length(tmp_path):
    """As it may be in a config: streams are keyed by it."""
    checked({"seed": 10**40}, CONFIG, tmp_path)
    for seed in ("3", True, 0.5):
        with pytest.raises(InputError, match="seed: must be a whole number, and is "):
            checked({"seed": seed}, CONFIG, tmp_path)
