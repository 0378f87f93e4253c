"""Refused: what secure aggregation hides from the server, and groups that hide too little."""

import pytest

from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.refusing import refusal

SECURE = "channel=secure_aggregation"

REFUSED = {
    "a robust rule behind one sum": (
        [SECURE, "aggregator=krum"],
        "aggregator=fedexp.aggregation.krum.Krum: the channel brings the server one sum and no "
        "individual update; use aggregator=mean, secure aggregation with channel.groups=g for the "
        "sums of g groups, or channel=plain",
    ),
    "a median behind one sum": (
        [SECURE, "aggregator=median"],
        "aggregator=fedexp.aggregation.median.Median: the channel brings the server one sum",
    ),
    "server-side clipping behind one sum": (
        [SECURE, "aggregator=norm_bounding"],
        "aggregator=fedexp.aggregation.norm_bounding.NormBounding: the channel brings the server "
        "one sum",
    ),
    "root data behind one sum": (
        [SECURE, "aggregator=fltrust"],
        "aggregator=fedexp.aggregation.fltrust.FLTrust: the channel brings the server one sum",
    ),
    "a detector behind one sum": (
        [SECURE, "detector=norm"],
        "detector=fedexp.detection.in_run.FittedDetector: the channel brings the server one "
        "sum and no individual update; use detector=none, secure aggregation with channel.groups=g",
    ),
    "mixing behind one sum": (
        [SECURE, "pre_aggregation=clipping"],
        "pre_aggregation=clipping: the channel brings the server one sum",
    ),
    "a cap on norms behind one sum": (
        [SECURE, "update_validation.norm_cap=5"],
        "update_validation.norm_cap=5: the channel brings the server one sum",
    ),
    "uniform weights that the sum does not have": (
        [SECURE, "aggregator.weighting=uniform"],
        "aggregator.weighting=uniform: clients weigh in the sum what channel.weighting says",
    ),
    "more clients needed than rows there are": (
        [SECURE, "min_clients=5"],
        "min_clients=5: counts rows, and 1 reach the server through the channel",
    ),
    "a rule that knows its clients across groups": (
        [SECURE, "n_clients=20", "channel.groups=5", "aggregator=foolsgold"],
        "foolsgold follows every client by itself",
    ),
    "more attackers than a rule across groups bears": (
        [
            SECURE,
            "n_clients=20",
            "channel.groups=4",
            "aggregator=trimmed_mean",
            "assumed_malicious=2",
        ],
        "aggregator.assumed_malicious=2: needs more than 2 x 2 clients, but 4",
    ),
    "groups too small to hide anybody": (
        [SECURE, "channel.groups=4"],
        "channel.groups=4: needs at least 3 x 4 clients, but 10 are in the round: a sum of "
        "fewer hides too little",
    ),
    "two clients": ([SECURE, "n_clients=2"], "channel.groups=1: needs at least 3 x 1 clients"),
    "a ring too small": ([SECURE, "channel.ring_bits=16"], "channel.ring_bits=16: too small"),
    "a ring too small for the largest Poisson cohort": (
        [
            SECURE,
            "sampler=poisson",
            "n_clients=40",
            "cohort_size=3",
            "channel.weighting=uniform",
            "channel.ring_bits=24",
        ],
        "channel.ring_bits=24: too small",
    ),
    "a threshold below a half": (
        [SECURE, "channel.threshold=0.4"],
        "channel.threshold=0.4: must lie between 0.5 and 1",
    ),
    "a threshold of everybody and more": (
        [SECURE, "channel.threshold=1"],
        "channel.threshold=1: must be below 1",
    ),
    "an odd number of neighbours": (
        [SECURE, "channel.neighbours=3"],
        "channel.neighbours=3: must be even",
    ),
    "an encoder that is a number": (
        [SECURE, "channel.encoder=3"],
        "channel.encoder=3: must be a part of its own",
    ),
    "a quantiser without bits": (
        [SECURE, "channel.encoder.bits=1"],
        "channel.encoder.bits=1: must be a whole number, 2 or above",
    ),
    "secure aggregation while centralised": (
        [SECURE, "setting=centralised"],
        "channel=fedexp.channel.secure_aggregation.SecureAggregation: needs setting=federated",
    ),
    "Skellam noise and weights by examples": (
        ["channel=secure_skellam", "channel.weighting=examples"],
        "channel.weighting=examples: with Skellam noise every client weighs the same",
    ),
    "Skellam noise of 0": (
        ["channel=secure_skellam", "channel.encoder.noise_multiplier=0"],
        "channel.encoder.noise_multiplier=0: must be a finite number above 0",
    ),
    "Skellam noise of none": (
        ["channel=secure_skellam", "channel.target_epsilon=.inf"],
        "channel.target_epsilon=inf: asks for no noise, which this mechanism always has; use a "
        "finite number, or channel=secure_aggregation",
    ),
    "Skellam noise that the ring cannot hold once it is calibrated": (
        ["channel=secure_skellam", "channel.target_epsilon=0.3", "channel.ring_bits=24"],
        "channel.ring_bits=24: too small",
    ),
    "Skellam noise given twice": (
        [
            "channel=secure_skellam",
            "channel.target_epsilon=3",
            "channel.encoder.noise_multiplier=2",
        ],
        "channel.encoder.noise_multiplier=2: the noise is given twice",
    ),
    "two mechanisms at once": (
        ["channel=secure_skellam", "privacy=dp_sgd"],
        "privacy=fedexp.privacy.dp_sgd.DPSGD: channel=secure_skellam is a mechanism of its "
        "own, and a run keeps one account; use privacy=none, or channel=secure_aggregation",
    ),
    "Skellam noise and a delta as large as a client": (
        ["channel=secure_skellam", "channel.delta=0.1"],
        "channel.delta=0.1: must be below 1/10, there being 10 clients",
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
        [SECURE, "n_clients=20", "channel.groups=5", "aggregator=median"],
        [
            SECURE,
            "n_clients=20",
            "channel.groups=5",
            "aggregator=trimmed_mean",
            "assumed_malicious=2",
        ],
        [
            SECURE,
            "n_clients=30",
            "channel.groups=10",
            "pre_aggregation=nnm",
            "update_validation.norm_cap=5",
        ],
        [SECURE, "n_clients=3"],
        [SECURE, "aggregator.weighting=uniform", "channel.weighting=uniform"],
        [SECURE, "privacy=dp_sgd"],
        [SECURE, "privacy=local_gaussian"],
        [SECURE, "attack=sign_flip"],
        ["channel=secure_skellam", "n_clients=12", "channel.groups=4", "aggregator=median"],
    ],
    ids=" ".join,
)
def test_accepts_what_is_close_to_a_refusal(overrides):
    build(config_for(*overrides)).experiment.backend.close()
