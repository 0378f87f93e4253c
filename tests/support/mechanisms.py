"""Mechanisms to change one argument of, rows for them, and what the server releases."""

import numpy as np
import torch

from fedexp.aggregation.mean import Mean
from fedexp.channel.plain import Plain
from fedexp.core.protection import Plan, Protection
from fedexp.federation.sampling import Full
from fedexp.privacy.account import NoAccount
from fedexp.privacy.client_level import ClientLevel
from fedexp.privacy.local import LocalGaussian, LocalLaplace
from fedexp.privacy.none import NoPrivacy
from tests.support.composing import part

LARGEST = float(np.finfo(np.float32).max)
BROKEN = [float("nan"), float("inf"), -float("inf")]


def rng(seed=0):
    return np.random.default_rng(seed)


def rows(n=9, d=1000, scale=1.0, seed=0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def protected(mechanism, n, d, rounds=3):
    """What a mechanism of conf/privacy makes of a run of n clients with 100 examples each."""
    plan = Plan(0, rounds, Full(n), (100,) * n, d, Mean("uniform"))
    bare = Protection(part("training", "sgd"), NoPrivacy(), Plain(), NoAccount(), mechanism)
    return mechanism.protect(plan, bare)


def client_level(**changes):
    arguments = {
        "sensitivity": lambda clip_norm: clip_norm,
        "clip_norm": 1.0,
        "noise_multiplier": 0.0,
        "expected_cohort": 10,
        "adaptive": False,
        "target_quantile": 0.5,
        "clip_learning_rate": 0.2,
        "count_noise": None,
        "noise_seed": "task",
    }
    return ClientLevel(**{**arguments, **changes})


def local_gaussian(**changes):
    arguments = {
        "clip_norm": 1.0,
        "noise_multiplier": 1.0,
        "epsilon_per_release": None,
        "delta_per_release": None,
        "adjacency": "replace_one",
        "noise_seed": "task",
    }
    return LocalGaussian(**{**arguments, **changes})


def local_laplace(**changes):
    arguments = {
        "clip_norm_l1": 1.0,
        "epsilon_per_release": 1.0,
        "adjacency": "replace_one",
        "noise_seed": "task",
    }
    return LocalLaplace(**{**arguments, **changes})


def released(privacy, sent, state=None, seed=0):
    """What the server makes of what it was sent: bounded, averaged, noised; and the next state."""
    d = sent.matrix.shape[1]
    state = privacy.init(d) if state is None else state
    received = privacy.on_receipt(sent, state)
    step = torch.zeros(d)
    if len(received):
        step, _ = Mean("examples")(received, {}, rng())
    return privacy.on_step(step, received, state, rng(seed))
