"""The list of slow tests is one of tests: a line of a test that was renamed makes nothing slow."""

import pytest

from tests.support import listed_as_slow


def test_every_test_that_is_listed_is_there(request):
    if any("::" in word for word in request.config.args) or request.config.getoption("lf", False):
        pytest.skip("files may be collected in part")
    gone = listed_as_slow.gone(request.config.stash[listed_as_slow.COLLECTED])
    assert not gone, "in tests/slow.txt, and no longer there:\n" + "\n".join(gone)


def test_what_is_gone_is_told_from_what_was_not_collected(monkeypatch):
    here = "tests/test_slow_list.py"
    lines = {f"{here}::a", f"{here}::b[1-x]", "tests/conftest.py::c", "tests/test_no_more.py::d"}
    monkeypatch.setattr(listed_as_slow, "listed", lambda: frozenset(lines))
    assert listed_as_slow.gone(frozenset({f"{here}::a", f"{here}::b[2-x]"})) == [
        "tests/test_no_more.py::d",
        f"{here}::b[1-x]",
    ]
