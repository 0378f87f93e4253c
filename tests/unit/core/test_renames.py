"""Old names of parts and keys: they keep working, and the new ones are told in a line."""

import pytest
from hydra.utils import get_object

from fedexp.config.build import build
from fedexp.core import renames
from fedexp.core.checks import InputError
from fedexp.core.renames import TARGETS, present_config, present_overrides, present_targets
from tests.support.composing import config_for

SMALL = ("model.hidden=[8]", "rounds=1")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(renames, "_said", set())


@pytest.mark.parametrize("old", TARGETS)
def test_every_old_name_leads_to_a_class_that_is_there(old):
    assert callable(get_object(TARGETS[old]))


def of_old(config):
    """The config as version 0.1 would have written it."""
    back = {new: old for old, new in TARGETS.items()}
    old = {k: v for k, v in config.items() if k not in renames.BEFORE}
    old["hygiene"] = old.pop("update_validation")
    old["training"] = {**old["training"], "worker_momentum": 0.0}

    def renamed(node):
        if isinstance(node, dict):
            node = {key: renamed(child) for key, child in node.items()}
            if node.get("_target_") in back:
                node["_target_"] = back[node["_target_"]]
        return node

    return renamed(old)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("privacy=client_dp", "sampler=poisson"),
        ("privacy=dp_sgd", "leakage=[analytic,lira]"),
        ("privacy=local_laplace", "setting=federated"),
    ],
    ids=" ".join,
)
def test_a_saved_config_of_the_last_version_is_understood(overrides, capsys):
    config = config_for(*SMALL, "store=none", *overrides)
    old = of_old(config)
    assert "hygiene" in old
    assert present_config(old) == config
    told = capsys.readouterr().err.splitlines()
    assert "fedexp: hygiene is called update_validation now" in told
    assert len(told) == len(set(told))


def test_momentum_of_the_last_version_is_damped_and_starts_at_the_first_update():
    config = config_for(
        *SMALL, "store=none", "worker_momentum=momentum", "worker_momentum.beta=0.7"
    )
    old = of_old(config)
    old["training"]["worker_momentum"] = 0.7
    assert present_config(old) == config


def test_noise_of_the_clients_behind_secure_aggregation_has_a_class_of_its_own_now():
    config = config_for(*SMALL, "store=none", "channel=secure_skellam")
    old = of_old(config)
    old["channel"]["_target_"] = "fedexp.channel.secure_aggregation.SecureAggregation"
    assert present_config(old) == config


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (("attack=alie", "attack.direction=down"), {"attack": {"direction": None}}),
        (("attack=optimal_alie", "attack.direction=down"), {"attack": {"direction": None}}),
        (("attack=min_max", "attack.perturbation=std_down"), {"attack": {"perturbation": "std"}}),
        (("attack=min_sum", "attack.perturbation=sign"), {}),
        (
            (
                "aggregator=geometric_median",
                "aggregator.max_iterations=7",
                "aggregator.tolerance=0.0",
            ),
            {"aggregator": {"max_iterations": None, "tolerance": None, "iterations": 7}},
        ),
    ],
)
def test_what_meant_something_else_then_is_resumed_as_it_was(now, then):
    config = config_for(*SMALL, "store=none", *now)
    old = of_old(config)
    for group, keys in then.items():
        gone = {key for key, value in keys.items() if value is None}
        old[group] = {k: v for k, v in {**old[group], **keys}.items() if k not in gone}
    assert present_config(old) == config


def test_a_config_of_this_version_is_left_alone(capsys):
    config = config_for(*SMALL)
    assert present_config(config) == config
    assert capsys.readouterr().err == ""


def test_old_keys_on_a_command_line(capsys):
    assert present_overrides(
        ["hygiene=none", "hygiene.norm_cap=5", "training.worker_momentum=0.9", "rounds=1,2"]
    ) == [
        "update_validation=none",
        "update_validation.norm_cap=5",
        "worker_momentum=momentum",
        "worker_momentum.beta=0.9",
        "rounds=1,2",
    ]
    assert capsys.readouterr().err.count("is called") == 2


def test_an_old_target_in_a_yaml_of_the_users_is_built(capsys):
    config = config_for(*SMALL)
    config["sampler"]["_target_"] = "fedexp.sampling.Uniform"
    built = build(config)
    assert type(built.experiment.sampler).__module__ == "fedexp.federation.sampling"
    assert "is called fedexp.federation.sampling.Uniform now" in capsys.readouterr().err
    config["sampler"]["_target_"] = "fedexp.sampling.Uniformm"
    with pytest.raises(InputError, match="is no part for sampler"):
        build(config)


def test_targets_inside_lists_are_renamed():
    nodes = {"layers": [{"_target_": "fedexp.sampling.Full"}, 3]}
    assert present_targets(nodes) == {
        "layers": [{"_target_": "fedexp.federation.sampling.Full"}, 3]
    }
