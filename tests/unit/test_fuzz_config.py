"""The fuzz of keys can tell a refusal from a fault: planted outcomes."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_config.py"
RAN = {"status": "complete", "final": {"test": {"loss": 0.5}}}


@pytest.fixture(scope="module")
def wrong():
    script = runpy.run_path(str(SCRIPT))
    return lambda override, code, said, summary=RAN: script["_wrong"](
        override, script["SMALL"], code, said, summary
    )


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("training.lr=-1", 2, "fedexp: training.lr=-1: must be a finite number above 0"),
        ("rounds=abc", 2, "fedexp: rounds=abc: must be a whole number"),
        ("training.lr=0.5", 0, ""),
        ("cohort_size=-1", 2, "round 1: nobody came\nfedexp: max_failed_rounds=20: moved nothing"),
    ],
)
def test_what_is_right(wrong, override, code, said):
    assert wrong(override, code, said) == ""


@pytest.mark.parametrize(
    ("override", "code", "said", "summary", "reason"),
    [
        ("training.lr=-1", 70, "Traceback\nValueError: x", {}, "exit code 70: ValueError: x"),
        ("training.lr=-1", -9, "", {}, "no end after 60 s"),
        ("training.lr=-1", 2, "fedexp: must be above 0", {}, "names no key in one line"),
        ("training.lr=-1", 2, "must be above 0", {}, "not one line"),
        ("training.lr=abc", 0, "", RAN, "abc was accepted where the default is 0.1"),
        ("training.lr=nan", 0, "", RAN, "nan was accepted"),
        ("training.lr=1e300", 0, "", {"status": "running"}, "exit code 0, status running"),
        (
            "training.lr=1e300",
            0,
            "",
            {"status": "complete", "final": {"test": {"loss": float("inf")}}},
            "its loss is not finite",
        ),
    ],
)
def test_what_is_wrong(wrong, override, code, said, summary, reason):
    assert wrong(override, code, said, summary) == reason
