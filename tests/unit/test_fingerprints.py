"""scripts/fingerprints.py: the bits of every part are held against those of another version."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fingerprints.py"
GROUPS = {  # without what a run has where nothing is said
    "aggregator": set(),
    "algorithm": {"fedavg"},
    "attack": {"none"},
    "channel": {"plain"},
    "detector": {"none"},
    "leakage": {"none"},
    "partition": set(),
    "pre_aggregation": {"none"},
    "privacy": {"none"},
    "sampler": set(),
    "server_optimizer": {"sgd"},
    "setting": {"federated"},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fingerprints", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_is_among_the_runs(script, group):
    said = {override for _, overrides in script.cases() for override in overrides}
    missing = {
        name for name in script.choices(group, *GROUPS[group]) if f"{group}={name}" not in said
    }
    assert not missing
