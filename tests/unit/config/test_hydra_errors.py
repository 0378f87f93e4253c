"""What Hydra complains of, as one line."""

import tomllib
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from fedexp.config.hydra_errors import EXTRAS, one_line

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("choice", EXTRAS)
def test_a_plugin_that_is_not_installed_is_told_with_what_installs_it(choice):
    missing = MissingConfigException("", choice.replace("=", "/"), ["basic", "joblib"])
    installs = f"pip install 'fedexp[{EXTRAS[choice]}]'"
    assert one_line(missing) == f"{choice}: is not installed; {installs}"


def test_what_installs_a_plugin_is_an_extra_of_ours():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(EXTRAS.values()) <= set(pyproject["project"]["optional-dependencies"])


def test_another_choice_is_told_with_those_that_there_are():
    missing = MissingConfigException("", "hydra/launcher/joblb", ["basic", "joblib"])
    assert one_line(missing) == "hydra/launcher=joblb: did you mean joblib? Allowed: basic, joblib"
