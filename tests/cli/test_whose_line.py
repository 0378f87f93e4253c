"""Beside other jobs of a sweep, what a job says on the terminal begins with the job's name."""

import logging

import pytest

from fedexp.commands import execution


@pytest.mark.parametrize(("beside_others", "line"), [(True, "seed=1,a%d: words"), (False, "words")])
def test_a_line_on_the_terminal(tmp_path, monkeypatch, capsys, beside_others, line):
    monkeypatch.setattr(execution, "in_a_worker", lambda: beside_others)
    folder = tmp_path / "seed=1,a%d"
    folder.mkdir()
    with execution._logging_to(folder, quiet=True):
        logging.getLogger("fedexp").warning("%s", "words")
    assert capsys.readouterr().err.splitlines() == [line]
    assert "seed=1" not in (folder / "fedexp.log").read_text()  # which is the job's own
