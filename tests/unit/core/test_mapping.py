"""Files that are mapped, let go and found again by another process."""

import copy
import pickle
import sys

import pytest
import torch

from fedexp.core.examples import Split
from fedexp.core.mapping import Reference, file_of, let_go, map_bytes

ROWS, ROW = 64, 4096


@pytest.fixture
def file(tmp_path):
    place = tmp_path / "x.u8"
    place.write_bytes(bytes(range(256)) * (ROWS * ROW // 256))
    return place


def resident(tensor):
    """Kilobytes of the mapping around an address that are in this process's memory."""
    with open("/proc/self/smaps") as file:
        inside = False
        for line in file:
            if "-" in line.split(" ")[0] and not line.split(" ")[0].endswith(":"):
                low, high = (int(end, 16) for end in line.split(" ")[0].split("-"))
                inside = low <= tensor.data_ptr() < high
            if inside and line.startswith("Rss:"):
                return int(line.split()[1])
    raise AssertionError("not mapped")


def test_it_holds_what_the_file_holds(file):
    x = map_bytes(file, (ROWS, ROW))
    assert bytes(x.numpy()) == file.read_bytes()
    assert file_of(x[3:5]) == str(file)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is let go at once")
def test_pages_that_were_looked_at_are_given_back_and_come_again(file):
    x = map_bytes(file, (ROWS, ROW))
    total = int(x.long().sum())
    assert resident(x) >= ROWS * ROW // 1024
    let_go(x)
    assert resident(x) == 0
    assert int(x.long().sum()) == total


def test_memory_of_nobodys_file_is_left_alone(file):
    for x in (torch.arange(9000), torch.empty(0), torch.from_file(str(file), size=50)):
        before = x.clone()
        let_go(x)
        assert torch.equal(x, before)
        assert Reference.to(x) is None


@pytest.mark.parametrize("again", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
def test_a_part_of_a_split_travels_as_the_name_of_its_file(file, again):
    whole = Split(map_bytes(file, (ROWS, ROW)), torch.arange(ROWS), divisor=255)
    part = whole.between(5, 9)
    found = again(part)
    assert torch.equal(found.x, part.x)
    assert torch.equal(found.y, part.y)
    assert found.divisor == 255
    assert file_of(found.x) == str(file)
    assert len(pickle.dumps(part)) < 10_000


def test_what_is_shared_with_workers_stays_in_its_file(file):
    part = Split(map_bytes(file, (ROWS, ROW)), torch.arange(ROWS), divisor=255).shared()
    assert file_of(part.x) == str(file)
    assert part.y.is_shared()
