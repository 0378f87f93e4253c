"""Workers follow what a container may use, not what its host has."""

import os

import pytest

from fedexp.core import cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes what the kernel would show of control groups, on a machine of 16 cores."""
    monkeypatch.setattr(cores, "MOUNTED", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "GROUPS_OF_THIS_PROCESS", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

    def write(own, files):
        (tmp_path / "self").write_text(own)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),  # a container sees itself at the root
        ("0::/docker/ab\n", {"cpu.max": "400000 100000\n"}, 4),  # or under the host's name
        (
            "3:cpuset:/\n1:cpu,cpuacct:/job\n0::/x\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "50000\n",
            },
            5,
        ),
        (
            "1:cpu:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            16,
        ),
        ("0::/a\n", {"a/cpu.max": "9900000 100000\n"}, 16),
    ],
)
def test_the_smallest_quota_holds(groups, own, files, expected):
    groups(own, files)
    assert cores.available_cores() == expected


def test_without_control_groups_the_affinity_holds(groups):
    assert cores.available_cores() == 16


def test_a_system_without_affinity(groups, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores.available_cores() == 7


def test_a_worker_of_a_pool_stays_on_its_core(monkeypatch):
    monkeypatch.setattr(cores, "_asked_once", lambda: 7)
    monkeypatch.setattr(cores.multiprocessing, "parent_process", lambda: None)
    assert cores.cores_to_spare() == 7
    monkeypatch.setattr(cores.multiprocessing, "parent_process", lambda: object())
    assert cores.cores_to_spare() == 1
