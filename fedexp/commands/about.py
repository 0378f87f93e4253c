"""What a reader of a run has to know beside its figures: the part of summary.json that stays."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedexp.config.build import Built
from fedexp.config.origin import kernels, processor, versions
from fedexp.core.flat import vector_of


def about(
    config: Mapping[str, Any], built: Built, partition_document: Mapping[str, Any]
) -> dict[str, Any]:
    """What was run, on what, by which code, where.

    Args:
        config: the resolved config.
        built: what was built of it.
        partition_document: what partition.json holds.
    """
    dataset = built.dataset
    return {
        "rounds_planned": config["rounds"],
        "seed": config["seed"],
        "choices": config.get("choices", {}),
        "malicious_clients": [int(k) for k in built.experiment.malicious.nonzero()[0]],
        "partition_hash": partition_document["hash"],
        "examples_of": {
            "train": partition_document["held"],
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "majority_baseline": {
            part: built.task.majority_baseline(split.y, dataset.train.y)
            for part, split in (("validation", dataset.validation), ("test", dataset.test))
            if len(split)
        },
        **({"from": built.lineage.document} if built.lineage.document else {}),
        "remarks": list(built.remarks),
        "parameters": len(vector_of(built.model)),
        "threads": torch.get_num_threads(),
        "device": config["device"],
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "kernels": kernels(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": versions(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit that this code was checked out from; None for an installed package."""
    if shutil.which("git") is None:
        return None
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
