"""A file that grows, and a loss of power that takes what was not flushed of it."""

import pytest

from fedexp.run_folder.growing import CARRIED, Growing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def test_a_checkpoint_carries_all_until_it_is_much(path):
    file = Growing(path)
    file.begin(b"head\n")
    file.append(b"one\n")
    carried = file.carried()
    assert (carried.start, carried.end) == (0, b"head\none\n")
    file.append(b"x" * CARRIED)
    carried = file.carried()
    assert (carried.start, carried.end) == (9 + CARRIED, b"")
    file.append(b"two\n")
    carried = file.carried()
    assert (carried.start, carried.end) == (9 + CARRIED, b"two\n")
    assert path.read_bytes() == b"head\none\n" + b"x" * CARRIED + b"two\n"


@pytest.mark.parametrize("left", [0, 3, 9, 12, 13, 14, 999])
def test_whatever_is_left_behind_the_flushed_part_it_is_what_it_was(path, left):
    file = Growing(path)
    file.begin(b"head\none\n")
    file.flush()
    file.append(b"two\n")
    carried = file.carried()
    assert (carried.start, carried.end) == (9, b"two\n")
    file.append(b"three\n")
    path.write_bytes((path.read_bytes() + b"?" * 999)[:left])
    assert carried.fits(path) == (left >= 9)
    if carried.fits(path):
        again = Growing(path)
        again.restore(carried)
        assert path.read_bytes() == b"head\none\ntwo\n"
        again.append(b"four\n")
        assert path.read_bytes() == b"head\none\ntwo\nfour\n"
        assert again.carried().end == b"two\nfour\n"


def test_what_was_never_flushed_is_made_again(path):
    file = Growing(path)
    file.begin(b"head\n")
    carried = file.carried()
    path.unlink()
    assert carried.fits(path)
    Growing(path).restore(carried)
    assert path.read_bytes() == b"head\n"


def test_another_name_of_the_file_keeps_what_it_had(path, tmp_path):
    file = Growing(path)
    file.begin(b"head\n")
    file.flush()
    carried = file.carried()
    file.append(b"one\n")
    backup = tmp_path / "backup.csv"
    backup.hardlink_to(path)
    file.restore(carried)
    assert backup.read_bytes() == b"head\none\n"
    assert path.read_bytes() == b"head\n"
