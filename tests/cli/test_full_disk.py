"""A disk that is full, or fills up, or cannot be written to. Needs the right to mount one."""

import os
import subprocess

import pytest

from fedexp.commands.cli import run_command
from tests.cli.conftest import SMALL_RUN
from tests.support.commands import assert_same_bits

pytestmark = pytest.mark.usefixtures("without_pictures")
KILOBYTE = 1024
slow = pytest.mark.slow


@pytest.fixture
def mount(here):
    """Mounts a small disk on a new folder in the current one."""
    mounted = []

    def mount(name: str, options: str):
        folder = here / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "fedexp-test", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("may not mount a disk here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk_with(mount):
    """A disk of 2 MB with so many kilobytes free; removing the file `ballast` frees the others."""

    def disk_with(kilobytes: int):
        disk = mount("disk", "size=2m")
        (disk / "ballast").write_bytes(bytes((2048 - kilobytes) * KILOBYTE))
        return disk

    return disk_with


@pytest.mark.parametrize(
    "arguments", [["hydra.run.dir=disk/run"], ["-m", "hydra.sweep.dir=disk/x"]]
)
def test_full_at_the_start(disk_with, capfd, arguments):
    disk = disk_with(0)
    assert run_command(["run", *arguments, *SMALL_RUN]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert "disk" in error
    assert "No space left on device" in error
    assert os.listdir(disk) == ["ballast"]


@pytest.mark.parametrize(
    "kilobytes", [pytest.param(80, marks=slow), 300, pytest.param(900, marks=slow)]
)
def test_full_during_the_run(disk_with, whole_run, capfd, kilobytes):
    disk = disk_with(kilobytes)
    assert run_command(["run", *SMALL_RUN, "hydra.run.dir=disk/run"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    go_on = f"fedexp resume {disk / 'run'}"
    assert error.endswith(f"the disk is full; free some space, then: {go_on}\n")
    assert not list(disk.rglob("*.tmp"))

    # Still full: the same again.
    assert run_command(go_on.split()[1:]) == 2
    assert "the disk is full" in capfd.readouterr().err

    (disk / "ballast").unlink()
    assert run_command(go_on.split()[1:]) == 0
    assert_same_bits(disk / "run", whole_run)


@pytest.mark.parametrize(
    "override", ["hydra.run.dir=disk", "hydra.run.dir=disk/run", "hydra.run.dir=disk/a/b/c"]
)
def test_a_read_only_disk(mount, capfd, override):
    mount("disk", "ro")
    assert run_command(["run", *SMALL_RUN, override]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert error == f"fedexp: {override}: cannot be written to: Read-only file system\n"


def test_a_run_on_a_read_only_disk_cannot_go_on(mount, killed_run, capfd):
    disk = mount("disk", "size=4m")
    subprocess.run(["cp", "-r", str(killed_run), str(disk / "run")], check=True)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert run_command(["resume", "disk/run"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert "Read-only file system" in error
