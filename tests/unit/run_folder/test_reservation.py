"""A folder belongs to who made or locked it, and to nobody else."""

import pytest

from fedexp.core.checks import InputError
from fedexp.core.files import AtWork, locked, somebody_is_at
from fedexp.run_folder.reservation import reserved


def test_a_name_by_the_clock_is_numbered(tmp_path):
    wanted = tmp_path / "day" / "12-00-00"
    with (
        reserved(wanted, True) as first,
        reserved(wanted, True) as second,
        reserved(wanted, True) as third,
    ):
        assert [path.name for path in (first, second, third)] == [
            "12-00-00",
            "12-00-00-2",
            "12-00-00-3",
        ]
        for path in (first, second, third):
            assert somebody_is_at(path)
            (path / "config.yaml").touch()
    assert not somebody_is_at(wanted)


def test_a_name_of_the_users_is_had_once(tmp_path):
    with reserved(tmp_path / "run", False) as own:
        with pytest.raises(AtWork, match="another process"), reserved(own, False):
            pass
        assert own.is_dir(), "who came too late has removed the folder of who was first"
        (own / "config.yaml").touch()
    with pytest.raises(InputError, match="holds a run already"), reserved(own, False):
        pass
    assert (own / "config.yaml").exists()


def test_what_nothing_was_written_to_is_removed_again(tmp_path):
    for by_clock in (False, True):
        with reserved(tmp_path / "a" / "b" / "run", by_clock):
            pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "run").mkdir()
    with reserved(tmp_path / "run", False):
        pass
    assert (tmp_path / "run").is_dir()


def test_a_dead_process_lets_go(tmp_path):
    (tmp_path / ".lock").write_text("left by a process that was killed")
    with locked(tmp_path):
        assert somebody_is_at(tmp_path)
    assert not somebody_is_at(tmp_path)
