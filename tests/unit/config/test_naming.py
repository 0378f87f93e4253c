"""What figures are named by: a choice, or the class that ran under its name."""

import pytest

from fedexp.config.naming import names_of

MEAN, MEDIAN = "fedexp.aggregation.mean.Mean", "fedexp.aggregation.order_statistics.Median"
CLIPPING = "fedexp.pre_aggregation.clipping.Clipping"


@pytest.fixture
def own(tmp_path):
    """A folder with configs of a user's own."""
    (tmp_path / "aggregator").mkdir()
    for name, target in (("mean", "mine.Nearest"), ("near", "mine.Nearest")):
        (tmp_path / "aggregator" / f"{name}.yaml").write_text(f"# Mine\n_target_: {target}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("choice", "target", "name"),
    [
        ("mean", MEAN, "mean"),
        ("mean", "mine.Nearest", "Nearest"),  # by a mean.yaml of one's own, or by _target_
        ("mean", MEDIAN, "Median"),
        ("near", "mine.Nearest", "near"),  # a name that is nobody else's tells
        ("near", MEAN, "Mean"),
        ("unheard_of", "mine.Nearest", "unheard_of"),
    ],
)
def test_a_choice_keeps_its_name_while_its_class_runs(own, choice, target, name):
    config = {"aggregator": {"_target_": target}}
    assert names_of(config, {"aggregator": choice}, [own])["aggregator"] == name


def test_a_model_of_ones_own_is_named_by_its_class():
    config = {"model": {"_target_": "torchvision.models.squeezenet1_1"}}
    assert names_of(config, {"model": "custom"}, [])["model"] == "squeezenet1_1"


def test_parts_of_a_list_and_groups_in_groups_are_looked_at_too():
    config = {
        "pre_aggregation": {"clipping": {"_target_": CLIPPING}, "nnm": {"_target_": "mine.Mix"}},
        "training": {"_target_": "x", "schedule": {"_target_": "mine.Warm"}},
    }
    names = names_of(config, {"training/schedule": "constant"}, [])
    assert names["pre_aggregation"] == "clipping+Mix"
    assert names["training/schedule"] == "Warm"
    assert names["leakage"] == names["tracker"] == "none"
