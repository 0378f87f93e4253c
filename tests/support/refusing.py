"""How a config is refused: before any training, in one line that names the key."""

import pytest

from fedexp.config.build import build
from fedexp.core.checks import InputError


def refusal(config) -> str:
    """The line in which `config` is refused."""
    with pytest.raises(InputError) as caught:
        build(config)
    line = str(caught.value)
    assert "\n" not in line, line
    return line
