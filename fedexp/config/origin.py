"""Says what a run is made of, and what it is computed on."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import fedexp
from fedexp.config.build import Built
from fedexp.config.declared import NOT_THE_USERS
from fedexp.config.parts import Config
from fedexp.core.capabilities import has_own_bits
from fedexp.core.origin import Origin

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "opacus", "medmnist")
# Groups whose code is not that of the figures.
DECIDES_NOTHING = ("backend", "tracker", "leakage", "verdict")
NOT_OF_THE_USER = frozenset({"fedexp", *sys.stdlib_module_names})


def origin_of(config: Config, built: Built) -> Origin:
    """The origin of the figures of a run that starts, or goes on, now.

    Args:
        config: the resolved config.
        built: what was built of it.
    """
    return Origin(
        data=built.loaded.digest,
        partition=built.partition.hash,
        sources=own_sources(config),
        weights=built.lineage.start.digest,
        machine={
            **machine(),
            "threads": str(torch.get_num_threads()),
            "device": _device(built),
        },
    )


def machine() -> dict[str, str]:
    """What this process computes on, whatever the run."""
    return {
        **versions(),
        "code": code_of_fedexp()[:12],
        "machine": platform.machine(),
        "processor": processor(),
        "kernels": kernels(),
    }


def versions() -> dict[str, str]:
    """Of Python, and of the packages that figures come from."""
    return {
        "fedexp": fedexp.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def kernels() -> str:
    """Which of its kernels torch has chosen for this processor: DEFAULT, AVX2, AVX512, ..."""
    return torch.backends.cpu.get_cpu_capability()


@cache
def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


@cache
def code_of_fedexp() -> str:
    """SHA-256 of this package's source: a checkout changes without its version."""
    digest = hashlib.sha256()
    package = Path(fedexp.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _device(built: Built) -> str:
    device = built.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, clients in blocks" if has_own_bits(built.experiment.backend) else name


def own_sources(config: Config) -> dict[str, str]:
    """By module: the user's own parts, what lies in the same packages, and whatever these import.

    Of what is loaded.
    """
    deciding = {key: node for key, node in config.items() if key not in DECIDES_NOTHING}
    waiting, seen = {name.partition(".")[0] for name in users_targets(deciding)}, set[str]()
    sources = {}
    while waiting:
        seen |= waiting
        imported = set[str]()
        for name, module in sorted(sys.modules.items()):
            if name.partition(".")[0] in waiting and (source := _source_of(module)) is not None:
                sources[name] = hashlib.sha256(ast.unparse(source).encode()).hexdigest()
                imported |= _imported_by(source)
        waiting = imported - seen - NOT_OF_THE_USER
    return dict(sorted(sources.items()))


def _imported_by(source: ast.Module) -> set[str]:
    """The packages that a module imports from, beside its own."""
    names = set[str]()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def users_targets(node: Any) -> set[str]:
    """Every `_target_` in a config that is the user's own."""
    return {target for target in _targets(node) if not target.startswith(NOT_THE_USERS)}


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a config."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _targets(child)


def _source_of(module: ModuleType) -> ast.Module | None:
    """A module's code without comments and layout; None of an installed one, or without a file."""
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py") or "-packages" in file:
        return None
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
