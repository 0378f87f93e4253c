"""The page of one run: its curves, its matrices and the sections of its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedexp.reporting.adversary import attack_success
from fedexp.reporting.blocks import Block, blocks_of
from fedexp.reporting.chart import Chart, chart
from fedexp.reporting.page import commands, page, pictures
from fedexp.reporting.privacy import epsilon_of
from fedexp.reporting.results import Run
from fedexp.reporting.verdict_page import verdict_context

# What the page shows itself, in the reader's colours and with the values.
_SHOWN = ("loss", "accuracy", "partition", "confusion_matrix", "per_client_accuracy", "epsilon")
_SHOWN += ("verdict",)
_MOST_CLIENTS, _MOST_CLASSES = 60, 40  # of a matrix
_MOST_ROWS = 2_000
_SHADES = 9  # of the style sheet, beside white
_OF_CLIENTS = {
    "own_accuracy": "accuracy, own patients",
    "own_mix_accuracy": "accuracy, own class mix (estimate)",
    "accuracy": "accuracy, common test part",
}
_PROVENANCE = "How to repeat it"


def run_page(run: Run, status: str, sections: Mapping[str, str], drawn: Sequence[Path]) -> str:
    """`report.html` of a run.

    Args:
        run: the run.
        status: how it ended, in a line.
        sections: of `report.md`, by heading.
        drawn: the pictures in its folder.
    """
    verdict = verdict_context(run.verdict or {})
    told = {name: text for name, text in sections.items() if text and name != _PROVENANCE}
    return page(
        "run.html.j2",
        title=f"fedexp: {run.path.name}",
        name=run.path.name,
        description=run.description,
        status=status,
        error=run.error,
        verdict=verdict,
        figures=_key_figures(run),
        charts=[found for found in _charts(run) if found is not None],
        sections=[
            (name, blocks_of(text))
            for name, text in told.items()
            if not (verdict and name.startswith("What federation is worth"))
        ],
        heats=[heat for heat in (_who_holds_what(run), _confusion(run)) if heat],
        clients=_clients(run),
        pictures=pictures(drawn, without=_SHOWN),
        commands=commands(run),
        provenance=blocks_of(sections.get(_PROVENANCE, "")),
    )


def _key_figures(run: Run) -> list[tuple[str, str]]:
    figures = {
        "test accuracy": run.final("test", "accuracy"),
        "always the commonest class": run.majority_baseline("test"),
        "balanced accuracy": run.final("test", "balanced_accuracy"),
        "AUC": run.final("test", "auc"),
        "attack success": run.attack_success,
        "epsilon": epsilon_of(run),
    }
    return [
        (name, "∞" if math.isinf(value) else f"{value:.4g}")
        for name, value in figures.items()
        if not math.isnan(value)
    ]


def _charts(run: Run) -> list[Chart | None]:
    parts = ("test", "validation")
    baseline = run.majority_baseline("test")
    note = [] if math.isnan(baseline) else [f"Always the commonest class: {baseline:.3f}."]
    accuracy = {part: run.model_curve(part, "accuracy") for part in parts}
    losses = {part: run.model_curve(part, "loss") for part in parts}
    return [
        chart("Accuracy", "share of examples answered rightly", accuracy, notes=note),
        chart("Loss", "mean a sample", {**losses, "train": run.curve("train", "loss")}),
        chart("Attack success", "share of the answers it wants", {"attack": attack_success(run)}),
        chart("Epsilon", "spent so far", {"epsilon": run.curve("privacy", "epsilon")}, (), True),
    ]


def _who_holds_what(run: Run) -> dict[str, Any]:
    counts = run.counts
    if not counts.size or len(counts) > _MOST_CLIENTS or counts.shape[1] > _MOST_CLASSES:
        return {}
    names = [str(name) for name in (run.partition or {}).get("class_names") or []]
    names = names if len(names) == counts.shape[1] else [str(k) for k in range(counts.shape[1])]
    clients = [run.client_name(k) for k in range(len(counts))]
    return {
        "title": "Who holds what",
        "text": "Training examples of each class at each client, and in all.",
        "corner": "client",
        "columns": [*names, "all"],
        "rows": [
            (client, [*cells, (f"{int(row.sum()):,}", 0, f"{client}: all")])
            for client, row, cells in zip(
                clients, counts, _shaded(counts, counts.max(), clients, names), strict=True
            )
        ],
    }


def _confusion(run: Run) -> dict[str, Any]:
    if run.confusion is None or run.confusion.empty or len(run.confusion) > _MOST_CLASSES:
        return {}
    counts = run.confusion.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [str(name) for name in run.confusion.columns]
    cells = _shaded(counts, 1.0, [f"true {name}" for name in names], names, shares)
    return {
        "title": "Which class is taken for which",
        "text": "Test examples of each true class (rows) by the answer of the model (columns), "
        "shaded by their share of the true class.",
        "corner": "true class",
        "columns": names,
        "rows": list(zip(names, cells, strict=True)),
    }


def _shaded(
    counts: np.ndarray,
    most: float,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray | None = None,
) -> list[list[tuple[str, int, str]]]:
    """For each cell what stands in it, its shade from 0 to 9, and what is said of it."""
    shades = np.ceil(_SHADES * (counts if values is None else values) / max(most, 1e-12))
    return [
        [
            (f"{int(count):,}", int(shades[i, j]), f"{row}, {column}: {int(count):,}")
            for j, (column, count) in enumerate(zip(columns, counts[i], strict=True))
        ]
        for i, row in enumerate(rows)
    ]


def _clients(run: Run) -> Block:
    """A row a client: its name, its examples and what was measured of it last."""
    measured = {
        heading: values
        for metric, heading in _OF_CLIENTS.items()
        if not (values := run.per_client("test", metric)).empty
    }
    if not measured:
        return Block("table")
    table = pd.DataFrame(measured).sort_values(next(iter(measured)), ascending=False)
    sizes = run.counts.sum(axis=1) if run.counts.size else np.empty(0)
    rows = [
        (
            run.client_name(int(client)),
            f"{int(sizes[client]):,}" if client < len(sizes) else "",
            *("" if math.isnan(value) else f"{value:.4f}" for value in values),
        )
        for client, *values in table.head(_MOST_ROWS).itertuples()
    ]
    more = f" The first {_MOST_ROWS:,} of {len(table):,}." if len(table) > _MOST_ROWS else ""
    return Block(
        "table",
        text=f"The last evaluation of every client that was measured, best first.{more}",
        columns=("client", "training examples", *measured),
        rows=tuple(rows),
    )
