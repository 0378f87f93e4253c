"""Do two versions of fedexp give the same bits? SHA-256 of what small runs of every kind leave.

    python scripts/fingerprints.py write before.json             about 160 small runs, a few minutes
    python scripts/fingerprints.py write after.json --only dp    those whose names hold a word
    python scripts/fingerprints.py compare before.json after.json

For every run the digests of `metrics.csv` and `model.safetensors`, and of the figures of its
leakage study where it has one. To fingerprint another version, put its checkout first on the path:
`PYTHONPATH=OTHER_CHECKOUT python scripts/fingerprints.py write before.json`. Digests belong to one
kind of processor and one set of libraries: compare only what was written on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

SMALL = ("rounds=3", "n_clients=8", "training.epochs=1", "plots=false", "quiet=true")
CONF = Path(__file__).parents[1] / "conf"


def choices(group: str, *without: str) -> list[str]:
    """The choices of a config group, as they are now."""
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return [name for name in names if name not in without]


def cases() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, overrides) of every run."""
    for rule in choices("aggregator"):
        yield f"rule {rule}", (f"aggregator={rule}", "assumed_malicious=1")
    for attack in choices("attack", "none"):
        yield f"attack {attack}", (f"attack={attack}", "aggregator=trimmed_mean")
    yield "attack later", ("attack=ipm", "attack.first_round=1", "aggregator=median")
    for mixing in ("nnm", "bucketing", "clipping", "adaptive_clipping", "[clipping,nnm]"):
        more = ("attack=sign_flip", "attack.n_malicious=1", "aggregator=trimmed_mean")
        yield f"mixing {mixing}", (f"pre_aggregation={mixing}", *more)
    learning = ("autoencoder", "fldetector", "norm", "pca")  # from honest rounds
    for detector in choices("detector", "none"):
        warm = ("detector.warm_up_rounds=2",) if detector in learning else ()
        more = ("attack=sign_flip", "attack.first_round=3", "rounds=4")
        yield f"detector {detector}", (f"detector={detector}", *warm, *more)
    yield (
        "detector weighs",
        (
            "detector=norm",
            "detector.warm_up_rounds=2",
            "rounds=4",
            "detector.action=down_weight",
            "detector.quantile=0.5",
        ),
    )
    yield from _private()
    for setting in ("centralised", "local_only"):
        yield f"setting {setting}", (f"setting={setting}",)
        yield f"setting {setting} sampled", (f"setting={setting}", "cohort_size=3")
    for partition in choices("partition"):
        yield f"partition {partition}", (f"partition={partition}",)
    for model in choices("model", "custom"):
        yield f"model {model}", (f"model={model}", "rounds=1", "train_examples=200", "n_clients=2")
    for sampler in ("full", "uniform", "poisson"):
        size = () if sampler == "full" else ("cohort_size=3",)
        yield f"sampler {sampler}", (f"sampler={sampler}", *size)
    for optimizer in choices("server_optimizer", "sgd"):
        yield f"server {optimizer}", (f"server_optimizer={optimizer}",)
    yield "training adam", ("training=adam",)
    yield "training prox", ("training.proximal=0.1", "training.momentum=0.9")
    yield "training decay", ("training.weight_decay=0.01", "training/schedule=cosine")
    yield "worker momentum", ("worker_momentum=momentum", "worker_momentum.beta=0.9")
    yield "algorithm scaffold", ("algorithm=scaffold",)
    yield "sampler all_but", ("sampler=all_but",)
    yield "mixing weighted_nnm", ("pre_aggregation=weighted_nnm", "assumed_malicious=1")
    yield "pool", ("backend=process_pool", "backend.workers=2")
    yield "record updates", ("record_updates=safetensors",)
    yield from _studied()


def _private() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "dp dp_sgd", ("privacy=dp_sgd",)
    yield "dp dp_sgd target", ("privacy=dp_sgd", "privacy.target_epsilon=8")
    yield "dp dp_sgd centralised", ("privacy=dp_sgd", "setting=centralised")
    yield "dp dp_sgd cnn", ("privacy=dp_sgd", "model=small_cnn", "rounds=1")
    loose = ("privacy.delta=0.01",)
    yield "dp client_dp", ("privacy=client_dp", *loose)
    yield "dp client_dp poisson", ("privacy=client_dp", "sampler=poisson", "cohort_size=4", *loose)
    yield (
        "dp client_dp adaptive",
        ("privacy=client_dp", "privacy.adaptive=true", *loose, "privacy.count_noise=2.0"),
    )
    yield "dp client_dp target", ("privacy=client_dp", "privacy.target_epsilon=8", *loose)
    yield (
        "dp client_dp fixed",
        ("privacy=client_dp", "privacy.sampling=fixed_size", *loose, "cohort_size=4"),
    )
    yield "dp local_gaussian", ("privacy=local_gaussian", *loose)
    yield "dp local_laplace", ("privacy=local_laplace",)
    yield "dp input_gaussian", ("privacy=input_gaussian",)
    yield "dp input_laplace", ("privacy=input_laplace",)
    yield "dp max", ("privacy=client_dp", "privacy.max_epsilon=5", "rounds=6", *loose)
    for channel in choices("channel", "plain", "secure_aggregation", "secure_skellam"):
        yield f"channel {channel}", (f"channel={channel}",)
    yield "channel secure", ("channel=secure_aggregation",)
    yield "channel groups", ("channel=secure_aggregation", "channel.groups=2", "aggregator=median")
    yield (
        "channel dropouts",
        (
            "channel=secure_aggregation",
            "channel.drop_before_masking=0.1",
            "channel.neighbours=10",
        ),
    )
    yield "channel skellam", ("channel=secure_skellam", "channel.delta=0.01")
    yield "channel dp_sgd", ("channel=secure_aggregation", "privacy=dp_sgd")


def _studied() -> Iterator[tuple[str, tuple[str, ...]]]:
    for study in ("analytic", "geiping", "dlg", "idlg"):
        more = ("rounds=2", f"leakage.{study}.exposure.examples=2", "train_examples=300")
        short = () if study == "analytic" else (f"leakage.{study}.attack.iterations=20",)
        model = ("model=lenet",) if study in ("dlg", "idlg") else ()
        yield f"leakage {study}", (f"leakage={study}", *more, *short, *model)
    yield (
        "leakage recorded",
        (
            "leakage=analytic",
            "leakage/exposure@leakage.analytic.exposure=recorded",
            "record_updates=safetensors",
            "n_clients=200",
            "partition=iid",
            "train_examples=400",
            "training.batch_size=null",
            "leakage.analytic.exposure.examples=4",
        ),
    )
    short = ("leakage.epochs.attack.iterations=5", "leakage.epochs.exposure.examples=4")
    yield "leakage epochs", ("leakage=epochs", *short, "rounds=1", "train_examples=300")
    few = ("train_examples=300", "leakage.loss_threshold.permutations=100")
    yield "leakage loss_threshold", ("leakage=loss_threshold", *few)
    lira = ("leakage=lira", "leakage.lira.shadows=4", "leakage.lira.permutations=100")
    yield "leakage lira", (*lira, "train_examples=300")
    rmia = ("leakage=rmia", "leakage.rmia.permutations=100")
    yield "leakage rmia", (*rmia, "train_examples=300")
    server = ("leakage=server_membership", "leakage.server_membership.permutations=100")
    yield "leakage server_membership", (*server, "record_updates=safetensors")
    inversion = ("leakage.model_inversion.steps=20", "leakage.model_inversion.restarts=1")
    yield "leakage model_inversion", ("leakage=model_inversion", *inversion)
    many = ("leakage=audit_many_runs", "leakage.audit_many_runs.runs=20", "rounds=2")
    yield "leakage audit_many_runs", (*many, "privacy=client_dp", "privacy.delta=0.01")
    audit = ("leakage=audit", "leakage.audit.canaries=20", "leakage.audit.guesses=[0.4]")
    yield "leakage audit dp_sgd", (*audit, "privacy=dp_sgd", "rounds=2")
    loose = ("privacy.delta=0.01", "rounds=2")
    yield "leakage audit client_dp", (*audit, "privacy=client_dp", *loose)
    yield "leakage audit local", (*audit, "privacy=local_gaussian", *loose)


def fingerprint(overrides: tuple[str, ...]) -> dict[str, str]:
    """Digests of what one run leaves, or the line with which it was refused."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        sys.argv = ["fedexp", "run", *SMALL, *overrides, f"hydra.run.dir={folder}"]
        said = StringIO()
        try:
            with redirect_stdout(said):
                runpy.run_module("fedexp", run_name="__main__")
        except SystemExit as end:
            if end.code:
                return {"exit": str(end.code)}
        kept = ["metrics.csv", "model.safetensors"]
        kept += [str(p.relative_to(folder)) for p in sorted(folder.glob("leakage/*/figures.csv"))]
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in kept}


def write(out: Path, only: str) -> None:
    found = {}
    for name, overrides in cases():
        if only in name:
            found[name] = fingerprint(overrides)
            print(name, *(digest[:8] for digest in found[name].values()), flush=True)
            out.write_text(json.dumps(found, indent=1))


def compare(before: Path, after: Path) -> int:
    """1 if a run that both have differs."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    both = [name for name in old if name in new]
    differ = {name: [f for f in old[name] if old[name][f] != new[name].get(f)] for name in both}
    differ = {name: files for name, files in differ.items() if files}
    for name, files in differ.items():
        print(f"differs: {name}: {', '.join(files)}")
    for name in sorted(set(old) ^ set(new)):
        print(f"only in one: {name}")
    print(f"{len(both) - len(differ)} equal, {len(differ)} differ")
    return 1 if differ else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    writing = actions.add_parser("write")
    writing.add_argument("out", type=Path)
    writing.add_argument("--only", default="")
    comparing = actions.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    parsed = parser.parse_args()
    if parsed.action == "compare":
        return compare(parsed.before, parsed.after)
    write(parsed.out, parsed.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
