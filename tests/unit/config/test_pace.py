"""What a run says of keys that go by evaluations and change nothing."""

import pytest

from fedexp.config.pace import pace_remarks

PLAIN = {
    "eval_every": 1,
    "rounds": 5,
    "mean_last_rounds": None,
    "early_stopping": {"patience": None, "min_delta": 0.0},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ()),
        ({"mean_last_rounds": 5}, ()),
        (
            {"mean_last_rounds": 6},
            ("mean_last_rounds=6: is a mean over all there are, rounds=5",),
        ),
        (
            {"early_stopping": {"patience": None, "min_delta": 0.1}},
            (
                "early_stopping.min_delta=0.1: changes nothing while early_stopping.patience is "
                "null",
            ),
        ),
        ({"early_stopping": {"patience": 2, "min_delta": 0.1}}, ()),
        ({"early_stopping": {"_target_": "mine.Stopping", "min_delta": 0.1}}, ()),
    ],
)
def test_what_has_no_effect_is_said(changes, said):
    assert pace_remarks({**PLAIN, **changes}) == said
