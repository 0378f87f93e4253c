"""Run folders as older versions left them, made of one of today's."""

import hashlib
import io
import json
import math
from pathlib import Path

import torch

from fedexp.core.metric import Metric
from fedexp.run_folder.client_rows import read_tables
from fedexp.run_folder.rows import as_csv, shared_rows

AFTER = ("carried", "client_state")  # in a checkpoint of today


def as_in_version_0_1(folder: Path) -> None:
    """All rows in metrics.jsonl and metrics.csv, and a note beside every checkpoint."""
    single = [row for table in read_tables(folder) for row in table.rows()]
    rows = sorted([*shared_rows(folder), *single], key=lambda row: row.round)
    lines = [json.dumps(_as_line(row)) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines))
    (folder / "metrics.csv").write_bytes(as_csv(rows, header=True))
    (folder / "clients.bin").unlink()
    for path in (folder / "checkpoints").glob("*.pt"):
        today = torch.load(path, weights_only=True)
        buffer = io.BytesIO()
        torch.save({k: v for k, v in today.items() if k not in AFTER} | {"format": 4}, buffer)
        path.unlink()  # the best may be the same file
        path.write_bytes(buffer.getvalue())
        note = {
            "round": today["round"],
            "rows": sum(row.round <= today["round"] for row in rows),
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "client_state": today["client_state"],
        }
        path.with_suffix(".json").write_text(json.dumps(note))


def _as_line(row: Metric) -> dict[str, object]:
    return {**row.__dict__, "value": row.value if math.isfinite(row.value) else None}
