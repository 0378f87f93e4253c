"""How much memory this process may still take, which in a container is not what the machine has.

Source: the kernel's documentation, proc.rst (`MemAvailable`) and cgroup-v2.rst (`memory.max`,
`memory.current`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fedexp.core.cores import control_groups

MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes; None where the system does not say."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in MEMINFO.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                yield int(rest.split()[0]) * 1024
    for folder in control_groups():
        with suppress(OSError, ValueError):  # most files are not there; ValueError for "max"
            most = int((folder / "memory.max").read_text())
            # Of what a group has, the system takes back files' pages where memory is short.
            held = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield max(0, most - int(held.get("anon", 0)))
