"""Reads what Weights & Biases writes offline: LevelDB's log format around protobuf records."""

import json
import struct
from pathlib import Path

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4


def offline_run(path: Path) -> tuple[dict, list[tuple[int, str, float]]]:
    """(config, its scalars as (step, name, value)) of a `.wandb` file."""
    config: dict = {}
    rows = []
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            config = {u.key: json.loads(u.value_json) for u in record.run.config.update}
        if kind == "history":
            for item in record.history.item:
                name = item.key or item.nested_key[0]
                if not name.startswith("_"):
                    rows.append((record.history.step.num, name, json.loads(item.value_json)))
    return config, rows


def _records(content: bytes):
    from wandb.proto import wandb_internal_pb2

    at, whole = HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # too little room for a header: the block is padded
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        at += HEADER + length
        whole += content[at - length : at]
        if kind in (WHOLE, LAST):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""
