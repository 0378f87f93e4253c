"""Private runs on digits that an audit can look at: built, not trained, since audits train."""

from pathlib import Path

from fedexp.config.build import build
from fedexp.core.flat import vector_of
from fedexp.leakage.victim import Victim
from tests.support.composing import config_for

SMALL = ("dataset=digits", "model.hidden=[32]", "partition=iid", "backend=in_process", "rounds=5")
EXAMPLES = (
    *("n_clients=5", "training.epochs=1", "training.batch_size=32"),
    # Epsilon is about 1 with 200 canaries; rdp answers faster than prv.
    *("privacy=dp_sgd", "privacy.noise_multiplier=3.3", "privacy.accountant=rdp"),
)
CENTRAL = (
    "privacy=client_dp",
    "privacy.noise_multiplier=8.35",
    "sampler=full",
    "training.epochs=1",
)
LOCAL = (
    *("privacy=local_gaussian", "privacy.noise_multiplier=8.35", "training.epochs=1"),
    *("privacy.epsilon_per_release=null", "privacy.delta_per_release=null"),
)
LAPLACE = ("privacy=local_laplace", "privacy.epsilon_per_release=0.2", "training.epochs=1")


def audited(*overrides, seed=0):
    """A victim of these overrides, whose only model is the initial one."""
    config = config_for(*SMALL, f"seed={seed}", *overrides)
    built = build(config)
    return Victim.of(Path("nowhere"), config, built, {0: vector_of(built.model)})
