"""What a site's figures say, and when they say nothing, by hand."""

import numpy as np
import pytest

from fedexp.reporting.verdict import Site
from fedexp.verdict.figures import measured
from fedexp.verdict.metrics import Answered


@pytest.mark.parametrize(("ill", "told"), [(1, False), (2, True), (38, True), (39, False)])
def test_one_ill_or_one_healthy_patient_gives_no_interval_of_a_ranking(ill, told):
    rng = np.random.default_rng(0)
    truth = (np.arange(40) < ill).astype(np.int64)
    p = rng.uniform(size=40)
    found = measured(Answered(truth, np.stack([1 - p, p], axis=1)), np.arange(40), rng)
    for name in ("auc", "pr_auc", "balanced_accuracy", "macro_f1"):
        assert np.isfinite(found[name].value)
        assert np.isfinite(found[name].low) == np.isfinite(found[name].high) == told
    assert np.isfinite(found["brier"].low)


@pytest.mark.parametrize(
    ("auc", "useless"),
    [
        ([0.44, 0.33, 0.53], False),
        ([0.16, 0.06, 0.29], True),
        ([0.3, None, None], False),
        ([0.0, None, None], True),
        ([None, None, None], False),
        (None, False),
    ],
)
def test_a_ranking_is_worse_than_chance_by_its_whole_interval(auc, useless):
    site = Site("north", {"roles": {"federated": {"auc": auc}}, "gain": {}})
    assert site.useless == useless
