"""How much memory is free, where the system and the control groups say it differently."""

import pytest

from fedexp.core import memory


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A machine with 2,000 kB free, and a control group of this process."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "control_groups", lambda: iter([tmp_path, tmp_path / "none"]))
    return tmp_path


def test_what_the_machine_has(system):
    assert memory.available_memory() == 2_048_000


def test_a_group_without_a_limit(system):
    (system / "memory.max").write_text("max\n")
    assert memory.available_memory() == 2_048_000


def test_a_group_with_less(system):
    (system / "memory.max").write_text("1000000\n")
    (system / "memory.stat").write_text("anon 300000\nfile 600000\n")  # files make room
    assert memory.available_memory() == 700_000


def test_a_group_that_is_full(system):
    (system / "memory.max").write_text("1000\n")
    (system / "memory.stat").write_text("anon 3000\n")
    assert memory.available_memory() == 0


def test_where_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "control_groups", lambda: iter([]))
    assert memory.available_memory() is None
