"""Refused: attacks, and defences that could not withstand what is assumed."""

import pytest

from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.refusing import refusal

REFUSED = {
    "attack while centralised": (
        ["attack=sign_flip", "setting=centralised"],
        "attack.n_malicious=2: needs setting=federated",
    ),
    "attack while alone": (
        ["attack=sign_flip", "setting=local_only"],
        "attack.n_malicious=2: needs setting=federated",
    ),
    "more attackers than clients": (
        ["attack=sign_flip", "attack.n_malicious=11"],
        "attack.n_malicious=11: must lie between 0 and 10",
    ),
    "part of an attacker": (
        ["attack=sign_flip", "attack.n_malicious=1.5", "assumed_malicious=1"],
        "attack.n_malicious=1.5: must be a whole number",
    ),
    "negative attackers": (
        ["attack.n_malicious=-1", "assumed_malicious=0"],
        "attack.n_malicious=-1: must lie between 0 and 10",
    ),
    "fraction above 1": (
        ["attack=sign_flip", "attack.fraction=1.5", "attack.n_malicious=1"],
        "attack.fraction=1.5: must lie between 0 and 1",
    ),
    "fraction below 0": (
        ["attack=sign_flip", "attack.fraction=-0.1", "attack.n_malicious=1"],
        "attack.fraction=-0.1: must lie between 0 and 1",
    ),
    "negative belief": (
        ["assumed_malicious=-1"],
        "assumed_malicious=-1: must be a whole number, 0 or above",
    ),
    "negative belief of a median": (
        ["aggregator=median", "aggregator.assumed_malicious=-1"],
        "aggregator.assumed_malicious=-1: must be a whole number, 0 or above",
    ),
    "trimmed mean with a majority of attackers": (
        ["aggregator=trimmed_mean", "attack=sign_flip", "attack.n_malicious=5"],
        "aggregator.assumed_malicious=5: needs more than 2 x 5 clients, but 10",
    ),
    "median with a majority of attackers in the cohort": (
        ["aggregator=median", "assumed_malicious=2", "cohort_size=4"],
        "aggregator.assumed_malicious=2: needs more than 2 x 2 clients, but 4",
    ),
    "a mixer's key without its choice": (
        ["+pre_aggregation.clipping.max_norm=3"],
        "pre_aggregation.clipping={'max_norm': 3}: is not chosen",
    ),
    "buckets of which half may lie": (
        ["pre_aggregation=bucketing", "n_clients=20", "assumed_malicious=5"],
        "pre_aggregation.bucketing.bucket_size=2: ",
    ),
    "bucketing before a rule that knows its clients": (
        ["pre_aggregation=bucketing", "aggregator=foolsgold"],
        "foolsgold follows every client by itself",
    ),
    "mixing while alone": (
        ["pre_aggregation=nnm", "setting=local_only"],
        "pre_aggregation=nnm: needs setting=federated",
    ),
    "worker momentum while centralised": (
        ["worker_momentum=momentum", "setting=centralised"],
        "worker_momentum=fedexp.federation.worker_momentum.Momentum: needs setting=federated",
    ),
    "a worker momentum that never listens": (
        ["worker_momentum=momentum", "worker_momentum.beta=1"],
        "worker_momentum.beta=1: must be at least 0 and below 1",
    ),
    "an attack before the first round": (
        ["attack=sign_flip", "attack.first_round=-1"],
        "attack.first_round=-1: must be a whole number, 0 or above",
    ),
    "an attack that ends before it begins": (
        ["attack=label_flip", "attack.first_round=3", "attack.last_round=2"],
        "attack.last_round=2: the attack would end before it begins (first_round=3)",
    ),
    "more root data than validation data": (
        ["aggregator=fltrust", "aggregator.root_examples=5000"],
        "aggregator.root_examples=5000: the clients can give",
    ),
    "less weight where nobody is weighed": (
        ["detector=pca", "detector.action=down_weight", "aggregator=median"],
        "detector.action=down_weight: has no effect on aggregator=Median",
    ),
    "a trigger larger than the image": (
        ["attack=backdoor", "attack.trigger_size=9"],
        "attack.trigger_size=9: does not fit into images of 8 x 8",
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
        ["attack=sign_flip", "attack.fraction=0", "setting=local_only"],
        ["attack=sign_flip", "attack.n_malicious=10", "assumed_malicious=0"],
        ["aggregator=trimmed_mean", "assumed_malicious=4"],
    ],
    ids=" ".join,
)
def test_accepts_what_is_close_to_a_refusal(overrides):
    build(config_for(*overrides)).experiment.backend.close()
