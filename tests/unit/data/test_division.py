"""Who goes to which part: by patient, by site, as it was said; and what cannot be."""

import numpy as np
import pandas as pd
import pytest

from fedexp.core.checks import InputError
from fedexp.data.division import Division
from fedexp.data.records import Records, coded


def records(label, **columns):
    places = [f"row {k}" for k in range(len(label))]
    words = {name: list(map(str, values)) for name, values in columns.items()}
    return Records.of(pd.DataFrame({"place": places, "label": list(map(str, label)), **words}))


@pytest.fixture
def hospitals():
    """2,000 images of 700 patients at four unequal sites, 3 unequal classes."""
    rng = np.random.default_rng(0)
    subject = np.sort(rng.integers(0, 700, 2000))
    site = np.searchsorted([350, 550, 660], subject, side="right")
    label = rng.choice(3, 700, p=[0.7, 0.2, 0.1])[subject]
    return records(label, site=site, subject=subject)


def share(where):
    return float(np.mean(where))


def test_the_shares_hold_in_all_and_at_every_site_and_in_every_class(hospitals):
    parts = Division("auto", 0.1, 0.2, 0)(hospitals)
    assert share(parts == 2) == pytest.approx(0.2, abs=0.005)
    assert share(parts == 1) == pytest.approx(0.1, abs=0.005)
    for site in range(4):
        here = hospitals.site == site
        # To about a patient, of three images each.
        assert (parts[here] == 2).sum() == pytest.approx(0.2 * here.sum(), abs=8)
    for label in range(3):
        here = hospitals.y == label
        assert (parts[here] == 2).sum() == pytest.approx(0.2 * here.sum(), abs=12)


def test_a_patient_is_in_one_part_by_default(hospitals):
    parts = Division("auto", 0.1, 0.2, 0)(hospitals)
    pairs = {(s, p) for s, p in zip(hospitals.subject.tolist(), parts.tolist(), strict=True)}
    assert len(pairs) == len(set(hospitals.subject.tolist()))


def test_by_example_patients_are_torn_apart_and_that_is_said(hospitals):
    division = Division("example", 0.1, 0.2, 0)
    parts = division(hospitals)
    pairs = {(s, p) for s, p in zip(hospitals.subject.tolist(), parts.tolist(), strict=True)}
    assert len(pairs) > len(set(hospitals.subject.tolist()))
    assert any("dataset.split=patient keeps them" in r for r in division.remarks(hospitals, parts))


def test_the_seed_decides(hospitals):
    one, again, other = (Division("auto", 0.1, 0.2, seed)(hospitals) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_patients_are_drawn_alike_often():
    # Over many seeds everybody is tested on a fifth of the time, also in a small site.
    few = records([0, 1] * 30, site=[0] * 40 + [1] * 20)
    tested = np.mean([Division("auto", 0.1, 0.2, seed)(few) == 2 for seed in range(60)], axis=0)
    assert tested.min() > 0.02
    assert tested.max() < 0.5


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_small_sites_train_first_and_are_tested_where_they_can_be(n):
    small = records([0, 1] * 50 + [0] * n, site=["big"] * 100 + ["small"] * n)
    division = Division("auto", 0.1, 0.2, 0)
    parts = division(small)
    of_small = parts[100:]
    assert (of_small == 0).any()
    assert (of_small == 2).any() == (n > 1)
    assert any("site small has no test" in r for r in division.remarks(small, parts)) == (n == 1)


def test_many_small_sites_fill_the_validation_part_together():
    sites = np.arange(80) // 4
    parts = Division("auto", 0.1, 0.2, 0)(records(np.arange(80) % 2, site=sites))
    assert 4 <= (parts == 1).sum() <= 12
    assert all((parts[sites == s] == 0).any() for s in range(20))


def test_a_class_of_one_is_trained_on():
    parts = Division("auto", 0.1, 0.2, 0)(records(["a"] * 30 + ["b"] * 30 + ["rare"]))
    assert parts[-1] == 0


def test_what_is_said_is_done_and_a_missing_validation_part_is_drawn_from_train():
    said = ["train"] * 30 + ["Test"] * 10
    parts = Division("auto", 0.1, 0.2, 0)(records(np.arange(40) % 2, part=said))
    assert (parts[30:] == 2).all()
    assert (parts[:30] == 1).sum() == 3
    assert not (parts[:30] == 2).any()


@pytest.mark.parametrize(
    ("by", "columns", "expected"),
    [
        ("patient", {}, "split=patient: the data do not say of which patient"),
        ("official", {}, "split=official: the data do not say to which part"),
        ("auto", {"part": ["train"] * 39 + [""]}, "row 39: it is not said in which part"),
        (
            "official",
            {"part": ["train"] * 30 + ["test"] * 10, "subject": [k // 4 for k in range(40)]},
            r"patient 7 is in train \(row 28\) and in test \(row 30\)",
        ),
    ],
)
def test_refused(by, columns, expected):
    with pytest.raises(InputError, match=expected):
        Division(by, 0.1, 0.2, 0)(records(np.arange(40) % 2, **columns))


@pytest.mark.parametrize(
    ("key", "value"),
    [("validation_share", 0.0), ("test_share", 0.95), ("split", "half"), ("split_seed", -1)],
)
def test_wrong_keys_are_named(key, value):
    right = {"split": "auto", "validation_share": 0.1, "test_share": 0.2, "split_seed": 0}
    with pytest.raises(InputError, match=f"{key}="):
        Division(*(right | {key: value}).values())


def test_words_are_in_natural_order():
    assert coded(["s10", "s9", "b", "", "10", "9"])[1] == ("9", "10", "b", "s9", "s10")
    assert coded(["1.25", "0.5", "1.5", "0.125"])[1] == ("0.125", "0.5", "1.25", "1.5")
    assert coded(["1", "0", "-1", "-0.5"])[1] == ("-1", "-0.5", "0", "1")
    assert coded(["1.10.2", "1.9.3"])[1] == ("1.9.3", "1.10.2")  # no numbers
