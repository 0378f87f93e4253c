"""How often leakage=audit raises the alarm, by how much of the claimed noise is really added.

    python scripts/audit_alarms.py digits --seeds 20
    python scripts/audit_alarms.py mnist --seeds 20
    python scripts/audit_alarms.py mnist_ten --seeds 3

Audits train by themselves: the runs are built, and their claim is what the account says of the
rounds that they plan; they are not trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.build import build
from fedexp.config.folders import conf_folder
from fedexp.config.found import settle
from fedexp.config.schema import register
from fedexp.core.flat import vector_of
from fedexp.leakage.audit.sight import spent_as_planned
from fedexp.leakage.victim import Victim

SHARES = (1.0, 0.95, 0.5, 0.3, 0.1)
COMMON = ("partition=iid", "backend=in_process", "privacy=dp_sgd", "model=mlp", "model.hidden=[32]")
COMMON += ("training.epochs=1", "training.batch_size=32")
SETTINGS = {
    # 5 clients of 287 examples, 9 steps a round, 45 in all.
    "digits": ("dataset=digits", "n_clients=5", "rounds=5"),
    # 2 clients of 1,500 examples, 47 steps a round, 470 in all.
    "mnist": ("dataset=mnist", "n_clients=2", "train_examples=3000", "rounds=10"),
    # 10 clients of 6,000 examples, 188 steps a round, 564 in all.
    "mnist_ten": ("dataset=mnist", "n_clients=10", "rounds=3"),
}


def planned(overrides: tuple[str, ...], folder: Path) -> Victim:
    """A run that is built and not trained, with its claim recorded in `folder`."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    settle(config)
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    built = build(plain)
    victim = Victim.of(folder, plain, built, {0: vector_of(built.model)})
    account = built.experiment.account
    said = dict(account.statement(spent_as_planned(built.experiment)) or {})
    (folder / "summary.json").write_text(json.dumps({"privacy": said}))
    return victim


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--canary", choices=["gradient", "image"], default="gradient")
    given = parser.parse_args()
    register()
    study = instantiate(OmegaConf.load(conf_folder() / "leakage" / "audit.yaml").audit)
    study = replace(study, canary=given.canary)
    alarms = dict.fromkeys(SHARES, 0)
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            more = (f"seed={seed}", f"privacy.target_epsilon={given.epsilon}")
            victim = planned((*COMMON, *SETTINGS[given.setting], *more), Path(folder))
            if seed == 0:
                start = time.perf_counter()
                print(study.beforehand(victim), f"({time.perf_counter() - start:.1f} s)")
            for share in SHARES:
                outcome = replace(study, noise_scale=share).trained(victim, lambda _: None)
                alarms[share] += outcome.verdict.alarm
        so_far = ", ".join(f"{share:g}: {alarms[share]}" for share in SHARES)
        cpu = time.process_time() / (seed + 1)
        print(f"{seed + 1} seeds, alarms by share of the noise: {so_far} ({cpu:.0f} CPU s a seed)")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
