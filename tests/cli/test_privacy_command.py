"""`fedexp privacy`: the answers on paper, called as a function."""

import re

import pytest

from fedexp.commands.privacy import worked_out
from fedexp.core.checks import InputError
from fedexp.privacy.accounting import Event, epsilon

NOTHING = dict.fromkeys(
    (
        "noise_multiplier",
        "target_epsilon",
        "sample_rate",
        "steps",
        "examples",
        "batch_size",
        "epochs",
    )
)


def ask(**options):
    return worked_out(**{**NOTHING, "delta": 1e-5, "sampling": "poisson", **options}).text()


def figures(text):
    """{(accountant, column): figure}."""
    found, column = {}, None
    for line in text.splitlines():
        if line.startswith("accountant"):
            column = line.split()[1]
        elif match := re.match(r"(prv|rdp)\s+(\S+)$", line):
            found[match[1], column] = float(match[2])
    return found


def test_epsilon_by_each_accountant():
    text = ask(sample_rate=0.01, noise_multiplier=1.0, steps=1000)
    assert text.splitlines()[0] == (
        "1000 steps, each on a Poisson sample at rate 0.01; delta 1e-05; "
        "neighbours: one member added or removed"
    )
    assert figures(text) == {("prv", "epsilon"): 1.8384, ("rdp", "epsilon"): 2.1014}
    assert "note" not in text


def test_the_noise_for_a_target():
    text = ask(sample_rate=1.0, steps=10, target_epsilon=3.0)
    found = figures(text)
    assert set(found) == {("prv", "noise"), ("rdp", "noise")}
    for name in ("prv", "rdp"):
        noise = found[name, "noise"]
        assert epsilon([Event(noise, 1.0, 10)], 1e-5, name).epsilon <= 3.0
        assert epsilon([Event(noise * 0.9997, 1.0, 10)], 1e-5, name).epsilon > 3.0


def test_examples_batches_and_epochs_are_counted_as_they_are_drawn():
    """600 examples in batches of 32: 19 batches, so q = 1/19 and 38 steps in two epochs."""
    options = {"examples": 600, "batch_size": 32, "noise_multiplier": 1.0}
    text = ask(epochs=2, **options)
    assert text.startswith("38 steps, each on a Poisson sample at rate 0.0526316;")
    assert figures(text)["prv", "epsilon"] == pytest.approx(2.54, abs=0.02)
    assert ask(steps=38, **options) == text


def test_delta_is_held_against_the_number_of_members():
    options = {"sample_rate": 0.1, "steps": 10, "noise_multiplier": 2.0}
    assert "note: delta=0.01 is not below 1/n = 0.01 of n = 100 members" in ask(
        delta=0.01, examples=100, **options
    )
    assert "note: delta=0.005 is above 1/(10 n)" in ask(delta=0.005, examples=100, **options)
    assert "note" not in ask(delta=1e-4, examples=100, **options)


def test_shuffled_batches_are_not_amplified():
    options = {"examples": 600, "batch_size": 32, "epochs": 2, "noise_multiplier": 1.0}
    text = ask(sampling="shuffled", **options)
    assert "note: shuffled batches are not Poisson samples: no amplification is proven" in text
    expected = epsilon([Event(1.0, 1.0, 38)], 1e-5, "prv").epsilon
    assert figures(text)["prv", "epsilon"] == pytest.approx(expected, abs=2e-4)
    assert figures(text)["prv", "epsilon"] > 15 * figures(ask(**options))["prv", "epsilon"]


def test_shuffled_batches_need_no_rate():
    text = ask(sampling="shuffled", steps=10, noise_multiplier=2.0)
    expected = epsilon([Event(2.0, 1.0, 10)], 1e-5, "prv").epsilon
    assert figures(text)["prv", "epsilon"] == pytest.approx(expected, abs=2e-4)


def test_cohorts_of_a_fixed_size():
    pytest.importorskip("dp_accounting")
    text = ask(
        sampling="fixed", examples=100, batch_size=10, steps=100, noise_multiplier=2.0, delta=1e-4
    )
    assert "10 of 100, drawn without replacement" in text
    assert "neighbours: one member replaced" in text
    assert list(figures(text)) == [("rdp", "epsilon")]


def test_who_answered_in_place_of_prv():
    text = ask(sample_rate=0.5, steps=100_000, noise_multiplier=0.3)
    assert text.count("note: prv cannot answer here") == 1
    assert figures(text)["prv", "epsilon"] == figures(text)["rdp", "epsilon"]


def test_no_noise():
    text = ask(sample_rate=0.5, steps=10, noise_multiplier=0.0)
    assert figures(text) == {("prv", "epsilon"): float("inf"), ("rdp", "epsilon"): float("inf")}
    assert text.count("note: without noise there is no bound") == 1


POISSON = {"sample_rate": 0.1, "steps": 10, "noise_multiplier": 1.0}
BY_SIZE = {"examples": 100, "batch_size": 10, "epochs": 1, "noise_multiplier": 1.0}
REFUSED = {
    "give --noise-multiplier, --target-epsilon or both": {"sample_rate": 0.1, "steps": 10},
    "give --sample-rate and --steps, or --examples": {"noise_multiplier": 1.0},
    "or --examples, --batch-size": {"noise_multiplier": 1.0, "examples": 100, "epochs": 1},
    "sample_rate=0.1: not together with --batch-size": {**POISSON, "batch_size": 10},
    "epochs=3: not together with --steps": {**BY_SIZE, "epochs": 3, "steps": 10},
    "sample_rate=1.2: must lie between 0 and 1": {**POISSON, "sample_rate": 1.2},
    "sample_rate=0: must be a finite number above 0": {**POISSON, "sample_rate": 0},
    "noise_multiplier=-1": {**POISSON, "noise_multiplier": -1},
    "noise_multiplier=nan": {**POISSON, "noise_multiplier": float("nan")},
    "steps=0: must be a whole number, 1 or above": {**POISSON, "steps": 0},
    "delta=0: must lie": {**POISSON, "delta": 0},
    "delta=1: must lie": {**POISSON, "delta": 1},
    "batch_size=101: there are 100 examples": {**BY_SIZE, "batch_size": 101},
    "batch_size=0": {**BY_SIZE, "batch_size": 0},
    "examples=-5": {**BY_SIZE, "examples": -5},
    "epochs=0": {**BY_SIZE, "epochs": 0},
    "target_epsilon=0.0: must be": {**POISSON, "target_epsilon": 0.0},
    "target_epsilon=1e-07: out of reach": {**POISSON, "target_epsilon": 1e-7},
    "sampling=poison: did you mean poisson?": {**POISSON, "sampling": "poison"},
    "sample_rate=0.1: has no effect: shuffled batches": {**POISSON, "sampling": "shuffled"},
    "sampling=fixed: needs --examples and --batch-size": {**POISSON, "sampling": "fixed"},
    "target_epsilon=2.0: is for sampling=poisson": {
        **BY_SIZE,
        "sampling": "fixed",
        "target_epsilon": 2.0,
    },
}


@pytest.mark.parametrize(("message", "options"), REFUSED.items())
def test_one_line_for_what_cannot_be_answered(message, options):
    with pytest.raises(InputError) as refusal:
        ask(**options)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
