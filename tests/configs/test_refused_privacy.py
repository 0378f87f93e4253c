"""Refused: promises of privacy that the run would not keep, and noise that is none."""

import pytest

from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.refusing import refusal

CLIENT_DP = "privacy=client_dp"
SECURE = "channel=secure_aggregation"
CUSTOM = "model=custom"

REFUSED = {
    # Client-level DP: one client moves the sum by the clip norm, and nothing else.
    "client-level DP and a median": (
        [CLIENT_DP, "aggregator=median"],
        "aggregator=fedexp.aggregation.median.Median: no bound is known for how far one client "
        "moves what this rule makes of the rows (it declares no sensitivity); use "
        "aggregator=mean, or noise in the clients: privacy=local_gaussian or dp_sgd",
    ),
    "client-level DP and Krum": ([CLIENT_DP, "aggregator=krum"], "aggregator=fedexp.aggregation.k"),
    "client-level DP and a detector": (
        [CLIENT_DP, "detector=norm"],
        "detector=fedexp.detection.in_run.FittedDetector: one client could change what becomes of "
        "the others, which no noise is there for; use detector=none",
    ),
    "client-level DP and mixing": (
        [CLIENT_DP, "pre_aggregation=nnm"],
        "pre_aggregation=nnm: one client could change what becomes of the others",
    ),
    "client-level DP and rounds that are skipped": (
        [CLIENT_DP, "min_clients=3"],
        "min_clients=3: whether a round is skipped would tell how many clients it had",
    ),
    "client-level DP: fixed cohorts accounted as Poisson": (
        [CLIENT_DP, "privacy.sampling=poisson"],
        "privacy.sampling=poisson: this is not how sampler=uniform says that it draws "
        "clients; use sampler=poisson with privacy.sampling=poisson, sampler=uniform with "
        "privacy.sampling=fixed_size, or privacy.sampling=none",
    ),
    "client-level DP: Poisson cohorts accounted as fixed": (
        [CLIENT_DP, "sampler=poisson", "privacy.sampling=fixed_size"],
        "privacy.sampling=fixed_size: this is not how sampler=poisson says that it draws",
    ),
    "client-level DP: a word for sampling": (
        [CLIENT_DP, "privacy.sampling=shuffled"],
        "privacy.sampling=shuffled: Allowed: auto, poisson, fixed_size, none",
    ),
    "client-level DP behind secure aggregation": (
        [CLIENT_DP, SECURE],
        "privacy=fedexp.privacy.client_dp.ClientDP: the server has to clip every update, and "
        "this channel hands on sums over clients; use channel=secure_skellam with privacy=none",
    ),
    "client-level DP and means of neighbours": (
        [CLIENT_DP, "channel=block_means", "privacy.adaptive=true"],
        "privacy=fedexp.privacy.client_dp.ClientDP: the server has to clip every update, and "
        "this channel hands on sums over clients; use channel=secure_skellam with privacy=none",
    ),
    "adaptive clipping that costs all of the noise": (
        [CLIENT_DP, "privacy.adaptive=true"],
        "privacy.noise_multiplier=1.0: leaves nothing for the updates",
    ),
    "client-level DP while centralised": (
        [CLIENT_DP, "setting=centralised"],
        "privacy=fedexp.privacy.client_dp.ClientDP: needs setting=federated: nothing is "
        "shared in this one, so no update needs hiding; use privacy=dp_sgd, or none",
    ),
    "client-level DP and a delta as large as a client": (
        [CLIENT_DP, "privacy.delta=0.1"],
        "privacy.delta=0.1: must be below 1/10, there being 10 clients: to publish one of them "
        "whole would be allowed",
    ),
    # Local DP.
    "local DP while alone": (
        ["privacy=local_gaussian", "setting=local_only"],
        "privacy=fedexp.privacy.local_dp.LocalGaussianDP: needs setting=federated",
    ),
    "Laplace noise with an L2 clip": (
        ["privacy=local_laplace", "+privacy.clip_norm=1"],
        "privacy.clip_norm=1: Laplace noise needs an L1 clip: behind an L2 clip it costs up to "
        "sqrt(d) times the epsilon; use clip_norm_l1, or privacy=local_gaussian",
    ),
    "Laplace noise given twice": (
        ["privacy=local_laplace", "privacy.target_epsilon=3", "privacy.epsilon_per_release=1"],
        "privacy.epsilon_per_release=1: the noise is given twice; leave it out, or target_epsilon",
    ),
    "local noise given twice": (
        ["privacy=local_gaussian", "privacy.noise_multiplier=1", "privacy.delta_per_release=0.1"],
        "privacy.noise_multiplier=1: the noise is given twice",
    ),
    "local noise of 0": (
        ["privacy=local_gaussian", "privacy.noise_multiplier=0"],
        "privacy.noise_multiplier=0: hides nothing, and epsilon is infinite; set "
        "privacy.allow_no_noise=true",
    ),
    # DP-SGD.
    "DP-SGD and BatchNorm": (
        [
            *["privacy=dp_sgd", "buffers=average", CUSTOM, "model._target_=torch.nn.Sequential"],
            "+model._args_=[{_target_: torch.nn.Flatten},"
            "{_target_: torch.nn.BatchNorm1d, num_features: 64},"
            "{_target_: torch.nn.Linear, in_features: 64, out_features: 10}]",
        ],
        "model=Sequential: layer 1 (BatchNorm1d) mixes the examples of a batch, so that no example "
        "has a gradient of its own; DP-SGD needs plain torch layers",
    ),
    "DP-SGD and frozen BatchNorm": (
        [
            *["privacy=dp_sgd", CUSTOM, "model._target_=torch.nn.Sequential"],
            "+model._args_=[{_target_: torch.nn.Flatten},"
            "{_target_: torch.nn.BatchNorm1d, num_features: 64, affine: false},"
            "{_target_: torch.nn.Linear, in_features: 64, out_features: 10}]",
        ],
        "model=Sequential: layer 1 (BatchNorm1d) mixes the examples of a batch",
    ),
    "DP-SGD without noise": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=0"],
        "privacy.noise_multiplier=0: hides nothing, and epsilon is infinite; set "
        "privacy.allow_no_noise=true to see what clipping alone does",
    ),
    "noise by accident": (
        [CLIENT_DP, "privacy.noise_multiplier=0"],
        "privacy.noise_multiplier=0: hides nothing",
    ),
    "negative noise": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=-1"],
        "privacy.noise_multiplier=-1: must be a finite number, 0 or above",
    ),
    "noise that is no number": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=nan"],
        "privacy.noise_multiplier=nan: must be a finite number",
    ),
    "noise as a word": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=much"],
        "privacy.noise_multiplier=much: must be a number",
    ),
    "noise that drowns everything": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=1e7"],
        "privacy.noise_multiplier=10000000.0: must lie between 0 and 1e+06",
    ),
    "noise neither given nor calibrated": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=null"],
        "privacy.noise_multiplier=null: the noise is not given; set it, or target_epsilon",
    ),
    "noise given and calibrated": (
        ["privacy=dp_sgd", "privacy.noise_multiplier=1", "privacy.target_epsilon=3"],
        "privacy.noise_multiplier=1: the noise is given twice; leave it out, or target_epsilon",
    ),
    "a word where a truth belongs": (
        ["privacy=dp_sgd", "privacy.allow_no_noise=maybe"],
        "privacy.allow_no_noise=maybe: must be true or false",
    ),
    "a clip norm of 0": (["privacy=dp_sgd", "privacy.clip_norm=0"], "privacy.clip_norm=0: must be"),
    "an infinite clip norm": ([CLIENT_DP, "privacy.clip_norm=inf"], "privacy.clip_norm=inf: must"),
    "delta 0": (["privacy=dp_sgd", "privacy.delta=0"], "privacy.delta=0: must lie between 0 and 1"),
    "delta 1": (["privacy=dp_sgd", "privacy.delta=1"], "privacy.delta=1: must lie between 0 and 1"),
    "a delta as large as an example": (
        ["privacy=dp_sgd", "privacy.delta=0.001"],
        "privacy.delta=0.001: must be below 1/1257, there being 1257 examples of all clients",
    ),
    "the promise taken away": (
        ["privacy=dp_sgd", "~privacy.delta"],
        "privacy.delta=: has no value; set it with +privacy.delta=",
    ),
    "an accountant that is no bound": (
        ["privacy=dp_sgd", "privacy.accountant=gdp"],
        "privacy.accountant=gdp: the Gaussian limit is no bound",
    ),
    "an unknown accountant": (
        ["privacy=dp_sgd", "privacy.accountant=rpd"],
        "privacy.accountant=rpd: did you mean rdp?",
    ),
    "an unknown source of noise": (
        ["privacy=dp_sgd", "privacy.noise_seed=random"],
        "privacy.noise_seed=random: Allowed: task, os",
    ),
    "a target of 0": (
        ["privacy=dp_sgd", "privacy.target_epsilon=0"],
        "privacy.target_epsilon=0: must be a finite number above 0",
    ),
    "no noise as a target, by accident": (
        ["privacy=dp_sgd", "privacy.target_epsilon=.inf"],
        "privacy.target_epsilon=inf: hides nothing, and epsilon is infinite; set "
        "privacy.allow_no_noise=true",
    ),
    "a limit on epsilon without noise": (
        [
            CLIENT_DP,
            "privacy.target_epsilon=.inf",
            "privacy.max_epsilon=9",
            "privacy.allow_no_noise=true",
        ],
        "privacy.max_epsilon=9: not even the first round keeps within it: epsilon would be inf",
    ),
    "an infinite limit": (
        ["privacy=dp_sgd", "privacy.max_epsilon=inf"],
        "privacy.max_epsilon=inf: must be a finite number above 0",
    ),
    "a target that is no number": (
        ["privacy=dp_sgd", "privacy.target_epsilon=nan"],
        "privacy.target_epsilon=nan: must be a finite number above 0",
    ),
    "Laplace noise of none": (
        ["privacy=local_laplace", "privacy.target_epsilon=.inf"],
        "privacy.target_epsilon=inf: asks for no noise, which this mechanism always has; use a "
        "finite number, or privacy=local_gaussian",
    ),
    "a target out of reach": (
        [CLIENT_DP, "privacy.target_epsilon=1e-9", "privacy.accountant=rdp"],
        "privacy.target_epsilon=1e-09: out of reach",
    ),
    "a limit of 0": (
        ["privacy=dp_sgd", "privacy.max_epsilon=0"],
        "privacy.max_epsilon=0: must be a finite number above 0",
    ),
    "a limit below the first round": (
        [CLIENT_DP, "privacy.max_epsilon=1"],
        "privacy.max_epsilon=1: not even the first round keeps within it: epsilon would be 4.3",
    ),
    "a limit without noise": (
        [
            CLIENT_DP,
            "privacy.max_epsilon=9",
            "privacy.noise_multiplier=0",
            "privacy.allow_no_noise=true",
        ],
        "privacy.max_epsilon=9: not even the first round keeps within it: epsilon would be inf",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    overrides, message = REFUSED[case]
    said = refusal(config_for(*overrides))
    assert said.startswith(message), said


@pytest.mark.parametrize(
    "overrides",
    [
        [CLIENT_DP, "sampler=poisson"],
        [CLIENT_DP, "cohort_size=5"],
        [CLIENT_DP, "cohort_size=5", "privacy.sampling=fixed_size"],
        [CLIENT_DP, "sampler=poisson", "privacy.sampling=none"],
        [CLIENT_DP, "worker_momentum=momentum", "server_optimizer=adam"],
        [CLIENT_DP, "privacy.noise_multiplier=0", "privacy.allow_no_noise=true"],
        [CLIENT_DP, "privacy.adaptive=true", "privacy.count_noise=2"],
        [CLIENT_DP, "attack=sign_flip"],
        ["privacy=local_gaussian", "aggregator=median", "worker_momentum=momentum"],
        ["privacy=local_gaussian", "privacy.noise_multiplier=2"],
        ["privacy=local_gaussian", "privacy.target_epsilon=3"],
        ["privacy=local_laplace", "privacy.target_epsilon=3"],
        ["privacy=dp_sgd", "setting=centralised"],
        ["privacy=dp_sgd", "setting=local_only"],
        ["privacy=dp_sgd", "aggregator=krum", "worker_momentum=momentum"],
        ["privacy=dp_sgd", "training=adam", "model=small_cnn"],
        ["privacy=dp_sgd", "privacy.noise_multiplier=1e-6", "privacy.noise_seed=os"],
    ],
    ids=" ".join,
)
def test_accepts_what_is_close_to_a_refusal(overrides):
    build(config_for(*overrides)).experiment.backend.close()
