"""Server rules beside ByzFL's own, on one matrix, in turns.

    PYTHONPATH=.:scripts python -m benchmarks.beside_byzfl           50 updates of 1.66M numbers
    PYTHONPATH=.:scripts python -m benchmarks.beside_byzfl --only krum --numbers 10000

ByzFL's take torch tensors, on as many threads as there are cores; ours use the cores by
themselves. A fifth of the clients may lie. The convergent geometric median is not ByzFL's three
steps, so ours is asked for these. `difference` is between both steps, as a share of ByzFL's: where
it is not small, the two are not the same rule.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import byzfl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.every_rule import CONF, updates_of
from benchmarks.timing import Contestant, interleaved
from fedexp.config.schema import register
from fedexp.core.cores import available_cores
from fedexp.core.rng import generator
from fedexp.core.types import Updates

AS_THEIRS = {
    "geometric_median": {
        "weighting": "uniform",
        "max_iterations": 3,
        "tolerance": 0,
        "smoothing": 0.1,
        "start": "zero",
    },
    "centred_clipping": {"radius": 1.0},
    "mean": {"weighting": "uniform"},
}
THEIRS: dict[str, Callable[[int], Callable[[torch.Tensor], object]]] = {
    "mean": lambda f: byzfl.Average(),
    "median": lambda f: byzfl.Median(),
    "trimmed_mean": lambda f: byzfl.TrMean(f),
    "meamed": lambda f: byzfl.Meamed(f),
    "geometric_median": lambda f: byzfl.GeometricMedian(nu=0.1, T=3),
    "krum": lambda f: byzfl.Krum(f),
    "multi_krum": lambda f: byzfl.MultiKrum(f),
    "monna": lambda f: byzfl.MoNNA(f, idx=0),
    "caf": lambda f: byzfl.CAF(f),
    "centred_clipping": lambda f: byzfl.CenteredClipping(L=1, tau=1.0),
    "nnm": lambda f: byzfl.NNM(f),
}


def ours(name: str, updates: Updates, f: int) -> Callable[[], torch.Tensor]:
    """A call of the rule, or of what comes before one."""
    group = "pre_aggregation" if name == "nnm" else "aggregator"
    document = {"n_clients": len(updates), "assumed_malicious": f}
    file = OmegaConf.load(CONF / group / f"{name}.yaml")
    config = OmegaConf.merge({**document, "it": file}, {"it": AS_THEIRS.get(name, {})})
    node = OmegaConf.to_container(config, resolve=True)["it"]  # type: ignore[index,call-overload]
    part = instantiate(node[name] if group == "pre_aggregation" else node, _convert_="all")
    if group == "pre_aggregation":
        return lambda: part(updates, generator(0, "rule")).matrix
    state = part.init(updates.matrix.shape[1])
    return lambda: part(updates, state, generator(0, "rule"))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--numbers", type=int, default=1_663_370)
    parser.add_argument("--only", nargs="*", default=list(THEIRS), choices=list(THEIRS))
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    register()
    updates, f = updates_of(arguments.clients, arguments.numbers), arguments.clients // 5
    for name in arguments.only:
        mine, rule = ours(name, updates, f), THEIRS[name](f)
        their = lambda rule=rule: rule(updates.matrix)  # noqa: E731
        step, expected = mine(), torch.as_tensor(their())
        times = interleaved(
            arguments.runs,
            {"fedexp": Contestant(mine, 1), "ByzFL": Contestant(their, available_cores())},
        )
        ratios = sorted(times["fedexp"].times_faster_than(times["ByzFL"]))
        line = {
            "rule": name,
            "fedexp": round(times["fedexp"].median, 4),
            "ByzFL": round(times["ByzFL"].median, 4),
            "times as fast": [
                round(r, 2) for r in (ratios[len(ratios) // 2], ratios[0], ratios[-1])
            ],
            "difference": float((step - expected).norm() / expected.norm()),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
