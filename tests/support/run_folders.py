"""Run folders as `fedexp run` leaves them, with made-up but plausible numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

DIGITS = tuple(str(digit) for digit in range(10))


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    setting: str = "federated",
    rounds: int = 30,
    eval_every: int = 1,
    n_clients: int = 10,
    class_names: Sequence[str] = DIGITS,
    alpha: float = 0.3,
    n_train: int = 6_000,
    reach: float = 0.95,
    choices: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    auc: bool = True,
    validation: bool = True,
    status: str = "complete",
    final: Mapping[str, float] | None = None,
    more: Sequence[tuple[int, str, str, str, float]] = (),
) -> Path:
    """Write a run whose accuracy rises to about `reach`.

    `final` overrides the test figures of the summary, `more` are further rows of the metrics.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, n_clients, int(reach * 1000)])
    n_classes = len(class_names)
    write_config(
        folder,
        seed=seed,
        setting=setting,
        rounds=rounds,
        n_clients=n_clients,
        choices=choices,
        config=config,
    )

    share = rng.dirichlet([alpha] * n_clients, size=n_classes)
    counts = np.stack([rng.multinomial(n_train // n_classes, p) for p in share]).T
    counts[:, 0] += counts.sum(axis=1) == 0
    (folder / "partition.json").write_text(
        json.dumps(
            {
                "n_clients": n_clients,
                "class_names": list(class_names),
                "sizes": counts.sum(axis=1).tolist(),
                "counts": counts.tolist(),
                "hash": "a1b2c3",
                "indices": [[0]] * n_clients,
                "skew": {"mean_total_variation_distance": 0.41},
            }
        )
    )

    rows: list[tuple[int, str, str, str, float]] = []
    mix = counts / counts.sum(axis=1, keepdims=True)
    recall = np.clip(reach + rng.normal(0, 0.03, n_classes), 0, 1)
    baseline = 1.2 / n_classes
    accuracy = baseline
    parts = ["validation", "test"] if validation else ["test"]
    for number in range(1, rounds + 1):
        grown = 1 - np.exp(-5 * number / max(rounds, 5))
        accuracy = baseline + (reach - baseline) * grown + rng.normal(0, 0.008)
        rows.append((number, "train", "all", "loss", 2.3 - 2.2 * grown + rng.normal(0, 0.03)))
        rows += [(number, "round", "all", "clients", float(n_clients))]
        if number % eval_every and number != rounds:
            continue
        for part in parts:
            drift = 0.01 if part == "validation" else 0.0
            figures = {
                "loss": 2.35 - 2.1 * grown + rng.normal(0, 0.02),
                "accuracy": accuracy + drift,
                "balanced_accuracy": accuracy - 0.01,
                "macro_f1": accuracy - 0.015,
                "auc": min(0.999, accuracy + 0.03) if auc else float("nan"),
            }
            if setting == "local_only":
                for metric, value in figures.items():
                    spread = {"mean": value - 0.2, "std": 0.05, "min": value - 0.3}
                    spread["max"] = value - 0.12
                    rows += [(number, part, name, metric, v) for name, v in spread.items()]
            else:
                rows += [(number, part, "all", metric, v) for metric, v in figures.items()]
        for client in range(n_clients):
            own = float(np.clip(mix[client] @ (recall * grown) + rng.normal(0, 0.02), 0, 1))
            rows.append((number, "test", str(client), "own_mix_accuracy", own))
            if setting == "local_only":
                common = float(np.clip(own - 0.15 - rng.gamma(2, 0.05), 0, 1))
                rows.append((number, "test", str(client), "accuracy", common))

    table = pd.DataFrame([*rows, *more], columns=["round", "scope", "client", "metric", "value"])
    table.to_csv(folder / "metrics.csv", index=False)
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in records))
    (folder / "timing.jsonl").write_text(
        "".join(
            json.dumps({"round": r, "train": 0.8, "aggregate": 0.01, "evaluate": 0.1}) + "\n"
            for r in range(1, rounds + 1)
        )
    )
    if setting != "local_only":
        per_class = 1000 if n_classes > 5 else 150
        matrix = [
            rng.multinomial(per_class, _confuse(true, recall[true], n_classes, rng))
            for true in range(n_classes)
        ]
        pd.DataFrame(matrix, columns=list(class_names)).to_csv(
            folder / "confusion_matrix.csv", index=False
        )
    write_summary(folder, table, seed, rounds, status, baseline, setting, final)
    return folder


def write_config(
    folder: Path,
    *,
    seed: int = 0,
    setting: str = "federated",
    rounds: int = 30,
    n_clients: int = 10,
    choices: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """The resolved config; `config` sets single parameters by their dotted names."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {
        "dataset": "mnist",
        "partition": "dirichlet",
        "model": "mlp",
        "training": "sgd",
        "attack": "none",
        "aggregator": "mean",
        "setting": setting,
        **(choices or {}),
    }
    resolved: dict[str, Any] = {
        "seed": seed,
        "rounds": rounds,
        "n_clients": n_clients,
        "choices": chosen,
        "paths": {"output": str(folder)},
        **{group: {"_target_": f"fedexp.{group}.{name}"} for group, name in chosen.items()},
    }
    resolved["setting"]["name"] = setting
    resolved["attack"]["n_malicious"] = 0 if chosen["attack"] == "none" else 2
    resolved["training"] |= {"lr": 0.1, "batch_size": 10}
    for key, value in (config or {}).items():
        *groups, leaf = key.split(".")
        node = resolved
        for group in groups:
            node = node[group]
        node[leaf] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))


def write_summary(
    folder: Path,
    table: pd.DataFrame,
    seed: int,
    rounds: int,
    status: str,
    baseline: float,
    setting: str,
    final: Mapping[str, float] | None,
) -> None:
    who = "mean" if setting == "local_only" else "all"
    last: dict[str, dict[str, float | None]] = {}
    last_5: dict[str, dict[str, float | None]] = {}
    for part in ("test", "validation"):
        rows = table[(table["scope"] == part) & (table["client"] == who)]
        wide = rows.pivot(index="round", columns="metric", values="value")
        if wide.empty:
            continue
        last[part] = {str(k): _or_none(v) for k, v in wide.iloc[-1].items()}
        last_5[part] = {str(k): _or_none(v) for k, v in wide.iloc[-5:].mean().items()}
        last[part]["majority_baseline"] = baseline
    last["test"] |= final or {}
    single = table[(table["scope"] == "test") & table["client"].str.isdigit()]
    single = single[single["round"] == rounds].groupby("metric")["value"]
    over_clients = single.agg(["mean", "std", "min", "max"]).to_dict("index")
    summary = {
        "status": status,
        "error": None,
        "rounds": rounds,
        "rounds_planned": rounds,
        "seconds": 12.3,
        "examples_per_second": 14_634.1,
        "final": last,
        "mean_last_5": last_5,
        "final_over_clients": {"test": over_clients},
        "bytes_up": 3_180_160 * rounds,
        "bytes_down": 3_180_160 * rounds,
        "peak_memory_mb": 512.0,
        "seed": seed,
        "partition_hash": "a1b2c3",
        "versions": {"fedexp": "0.1.0", "torch": "2.10.0"},
        "git_commit": "0123abc",
        "hardware": "4 CPU cores",
        "threads": 1,
        "parameters": 79_510,
    }
    text = json.dumps(summary)
    (folder / "summary.json").write_text(text.replace("NaN", "null"))


def write_failed(folder: Path, error: str) -> Path:
    """A job that was refused or broke before its first round; `write_config` adds its config."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"status": "failed", "error": error, "rounds": 0, "rounds_planned": 30}
    (folder / "summary.json").write_text(json.dumps(summary | {"final": None, "seconds": None}))
    return folder


def _confuse(true: int, recall: float, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    wrong = rng.dirichlet([0.5] * n_classes)
    wrong[true] = 0
    shares = (1 - recall) * wrong / max(wrong.sum(), 1e-9)
    shares[true] = 1 - shares.sum()
    return shares


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
