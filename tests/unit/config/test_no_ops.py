"""What has no effect says so, and what can never have one is refused."""

import pytest

from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.refusing import refusal

SMALL = ("model.hidden=[8]", "rounds=3")


def remarks(*overrides):
    return build(config_for(*SMALL, *overrides)).remarks


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("attack=sign_flip", "n_clients=2"),  # a quarter of two rounds to none
            "attack has no effect: none of the 2 clients is malicious",
        ),
        (("attack.n_malicious=3",), "attack.n_malicious=3 has no effect: attack=none"),
        (
            ("detector=norm",),
            "detector has no effect: it learns in its first 10 rounds, and the run has 3",
        ),
        (("assumed_malicious=2",), "assumed_malicious=2 has no effect: no part of this run has"),
    ],
)
def test_what_has_no_effect_is_said(overrides, words):
    (remark,) = remarks(*overrides)
    assert remark.startswith(words)


def test_what_has_an_effect_is_not_remarked_on():
    assert remarks("attack=sign_flip") == ()
    assert remarks("detector=norm", "detector.warm_up_rounds=2") == ()
    assert remarks("assumed_malicious=2", "aggregator=trimmed_mean") == ()
    assert remarks("assumed_malicious=2", "detector=flanders", "detector.window=2") == ()
    assert remarks() == ()


def test_an_attack_that_never_comes_is_refused():
    line = refusal(config_for(*SMALL, "attack=sign_flip", "attack.first_round=3"))
    assert line.startswith("attack.first_round=3: never comes: the run has 3 rounds")
    assert remarks("attack=sign_flip", "attack.first_round=2") == ()
