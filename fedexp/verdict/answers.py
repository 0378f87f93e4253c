"""What models answered about each site's own patients, and who these patients are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import safetensors
import safetensors.numpy
from torch import Tensor

from fedexp.config.build import Built
from fedexp.core.files import write_atomically
from fedexp.core.partition import OwnPart

PARTS = ("validation", "test")
Logits = tuple[np.ndarray, ...]
"""One array `[n, classes]` float32 a site; a site may have no patients."""


@final
@dataclass(frozen=True)
class Patients:
    """Who was asked about, of one site and one part."""

    truth: np.ndarray  # [n] int64 classes, or [n, labels]
    of_whom: np.ndarray  # [n] int64, equal for examples of one patient

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def number(self) -> int:
        """How many patients there are."""
        return len(np.unique(self.of_whom))


@final
@dataclass(frozen=True)
class Site:
    """A client, and its own patients by part."""

    name: str
    patients: dict[str, Patients]
    trained_on: int  # examples


def sites_of(built: Built) -> tuple[Site, ...]:
    """The clients of a run with their own patients, in order."""
    names = built.partition.names or [f"client {k}" for k in range(len(built.partition.shards))]
    return tuple(
        Site(
            name,
            {part: _patients(built.own.of[part], k) for part in PARTS},
            len(built.partition.shards[k]),
        )
        for k, name in enumerate(names)
    )


def _patients(own: OwnPart, client: int) -> Patients:
    rows = own.rows[client]
    examples = np.arange(len(rows))
    if own.part.subject is None:
        of_whom = examples
    else:
        subject = own.part.subject.numpy()[rows]
        # Who is not known is somebody else each time; below every number that is.
        of_whom = np.where(subject < 0, -1 - examples, subject)
    return Patients(own.part.y.numpy()[rows], of_whom)


@final
@dataclass(frozen=True)
class Answers:
    """The logits of a model, or of each site's own, on each site's own patients."""

    validation: Logits
    test: Logits

    @classmethod
    def of(cls, built: Built, models: Sequence[Tensor]) -> Answers:
        """Ask one model for all sites, or one for each.

        Args:
            built: of a run; its backend is asked.
            models: `[d]` each.
        """
        backend, scopes = built.experiment.backend, built.own.scopes
        found = {}
        for part in PARTS:
            outputs = [logits.cpu().numpy() for logits in backend.evaluate(models, scopes[part])]
            found[part] = tuple(
                outputs[k if len(outputs) > 1 else 0][rows]
                for k, rows in enumerate(built.own.of[part].rows)
            )
        return cls(**found)

    def write(self, path: Path, digest: str) -> None:
        """Keep them, with a digest of all that decides them."""
        tensors = {
            f"{part}.{k}": np.ascontiguousarray(logits)
            for part in PARTS
            for k, logits in enumerate(getattr(self, part))
        }
        write_atomically(path, safetensors.numpy.save(tensors, metadata={"digest": digest}))

    @classmethod
    def read(cls, path: Path, digest: str, sites: Sequence[Site]) -> Answers | None:
        """What was kept; None if there is nothing, or something else."""
        try:
            with safetensors.safe_open(path, framework="np") as file:
                if (file.metadata() or {}).get("digest") != digest:
                    return None
                found = {
                    part: tuple(file.get_tensor(f"{part}.{k}") for k in range(len(sites)))
                    for part in PARTS
                }
        except (OSError, safetensors.SafetensorError):
            return None
        fit = all(
            len(logits) == len(site.patients[part])
            for part in PARTS
            for logits, site in zip(found[part], sites, strict=True)
        )
        return cls(**found) if fit else None


def digest_of(*parts: str) -> str:
    """SHA-256, in hex, of texts in order."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:{part}".encode())
    return whole.hexdigest()
