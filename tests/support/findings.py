"""Findings of studies in made-up run folders, as a study of leakage leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedexp.core.findings import Figure, Findings
from fedexp.reporting.leakage import figure_table
from fedexp.run_folder.findings import add_to_summary, read_findings, write_findings

FOUND = "reconstruction"


def figures(subject: str, metric: str, values: Sequence[float], round: int = 1) -> list[Figure]:
    return [Figure(subject, round, k, metric, value) for k, value in enumerate(values)]


def study_of(
    folder: Path,
    name: str = "dlg",
    rows: Sequence[Figure] = (),
    headline: Mapping[str, float] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """Put findings into a run folder, as a study of it does."""
    node = {"_target_": "fedexp.leakage.updates.inversion.UpdateInversion", **(settings or {})}
    found = Findings(figures=rows, headline=headline or {}, arrays=arrays or {}, **more)
    write_findings(folder, name, node, found, 1.5)
    add_to_summary(folder, name, found.headline)


def table_of(folder: Path) -> pd.DataFrame:
    (study,) = read_findings(folder)
    return figure_table(study)


def images(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((n, channels, 8, 8), dtype=np.float32)


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]
