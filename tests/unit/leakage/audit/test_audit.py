"""The audit: quiet about honest runs, loud about sabotaged ones, on real trainings of digits."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.core.checks import InputError
from fedexp.leakage.audit.f_dp import guessed
from fedexp.leakage.audit.study import OneRunAudit
from fedexp.privacy.accounting import Event, epsilon
from tests.support.audited_victims import CENTRAL, EXAMPLES, LAPLACE, LOCAL, audited
from tests.support.composing import CONF


def audit(victim, **changed):
    settings = {
        "canary": "gradient",
        "canaries": 200,
        "guesses": (0.1, 0.3, 0.6),
        "confidence": 0.95,
        "noise_scale": 1.0,
        "strength": 10.0,
        "others": 256,
    }
    shares = []
    findings = OneRunAudit(**settings | changed)(victim, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    return findings


# Every one of them claims an epsilon of about 1.
CLAIMS = {
    "dp_sgd": EXAMPLES,
    "client_dp": CENTRAL,
    "local_gaussian": LOCAL,
    "local_laplace": LAPLACE,
    "poisson": (
        *("privacy=client_dp", "privacy.noise_multiplier=4.7", "training.epochs=1"),
        *("sampler=poisson", "cohort_size=5", "privacy.accountant=rdp"),
    ),
}


@pytest.mark.parametrize(
    ("name", "seed"), [*((name, 0) for name in CLAIMS), ("dp_sgd", 1), ("client_dp", 1)]
)
def test_an_honest_run_is_not_contradicted_and_a_tenth_of_the_noise_is(name, seed):
    victim = audited(*CLAIMS[name], seed=seed)
    honest, sabotaged = audit(victim), audit(victim, noise_scale=0.1)
    claim = honest.headline["epsilon_claimed"]
    assert 0.9 < claim < 1.1
    assert sabotaged.headline["epsilon_claimed"] == claim  # the ledger was told nothing
    assert honest.headline["alarm"] == 0
    assert honest.headline["epsilon_lower_bound"] <= claim
    assert honest.conclusions[0].startswith("No contradiction; a low bound never proves DP")
    assert sabotaged.headline["alarm"] == 1
    assert sabotaged.headline["epsilon_lower_bound"] > claim
    assert sabotaged.headline["epsilon_lower_bound_any_mechanism"] > claim
    assert sabotaged.headline["p_value"] < 0.05
    assert sabotaged.conclusions[0].startswith("ALARM: the claim is ruled out")
    assert any("Sabotaged on purpose" in sentence for sentence in sabotaged.conclusions)


def test_a_tenth_less_noise_is_seen_by_looking_at_it():
    """Guesses would not: they have to rule out an epsilon."""
    honest, less = (audit(audited(*CLAIMS["dp_sgd"]), noise_scale=s) for s in (1.0, 0.9))
    assert honest.headline["noise"] == pytest.approx(1, abs=0.05)
    assert honest.headline["noise_at_most"] > 1
    assert less.headline["alarm"] == 1
    assert less.headline["noise_at_most"] < 1
    assert less.headline["epsilon_lower_bound"] > less.headline["epsilon_claimed"]
    assert less.headline["epsilon_lower_bound_any_mechanism"] < less.headline["epsilon_claimed"]
    assert any("times what is claimed, and at most 0.9" in line for line in less.conclusions)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dp_sgd", "client_dp"])
def test_alarms_over_many_seeds(name):
    honest, sabotaged = [], []
    for seed in range(20):
        victim = audited(*CLAIMS[name], seed=seed)
        honest.append(audit(victim, canaries=None).headline)
        share = 0.3 if name == "dp_sgd" else 0.1
        sabotaged.append(audit(victim, canaries=None, noise_scale=share).headline)
    assert sum(h["alarm"] for h in honest) <= 1  # 5 % of 20
    assert sum(h["alarm"] for h in sabotaged) >= 18
    assert np.mean([h["epsilon_lower_bound"] for h in honest]) < 0.6


def test_canary_images_see_less():
    victim = audited(*EXAMPLES)
    found = audit(victim, canary="image", noise_scale=0.3)
    assert found.headline["alarm"] == 0
    assert "200 images with one pixel" in found.conclusions[1]
    found = audit(victim, canary="image", noise_scale=0.1)
    assert found.headline["alarm"] == 1


def test_the_claim_is_the_ledgers():
    found = audit(audited(*CENTRAL, "rounds=2"))
    expected = epsilon([Event(8.35, 1.0, 2)], 1e-5, "prv").epsilon
    assert found.headline["epsilon_claimed"] == pytest.approx(expected)
    victim = audited(*EXAMPLES, "rounds=2")
    for canary, more in (("gradient", 0), ("image", 40)):  # images are members that count
        found = audit(victim, canary=canary)
        sizes = {len(shard) + more for shard in victim.partition.shards}
        events = [Event(3.3, 1 / -(-n // 32), 2 * -(-n // 32)) for n in sizes]
        expected = max(epsilon([event], 1e-5, "rdp").epsilon for event in events)
        assert found.headline["epsilon_claimed"] == pytest.approx(expected)


def test_a_run_that_stopped_early_is_audited_over_the_rounds_that_it_had():
    victim = audited(*EXAMPLES, "rounds=5")
    stopped = replace(victim, models={0: victim.models[0], 2: victim.models[0]})
    of_two = audit(audited(*EXAMPLES, "rounds=2")).headline["epsilon_of_the_ledger"]
    assert audit(stopped).headline["epsilon_of_the_ledger"] == of_two


def test_a_calibrated_run_is_audited_at_the_noise_that_it_had():
    # More examples make the batches' rate smaller: calibrated again, the noise would be less.
    calibrated = [o for o in EXAMPLES if "noise_multiplier" not in o]
    victim = audited(*calibrated, "privacy.target_epsilon=1.0", "rounds=1")
    z = victim.experiment.trainer.steps.noise_multiplier
    n = max(len(shard) for shard in victim.partition.shards) + 40
    expected = epsilon([Event(z, 1 / -(-n // 32), -(-n // 32))], 1e-5, "rdp").epsilon
    claim = audit(victim, canary="image").headline["epsilon_claimed"]
    assert claim == pytest.approx(expected)
    assert claim < 0.97


def test_a_centralised_run_and_its_examples():
    victim = audited(
        "privacy=dp_sgd", "setting=centralised", "n_clients=5", "training.batch_size=null",
        "training.epochs=1", "privacy.noise_multiplier=8.35", "rounds=3",
    )  # fmt: skip
    assert audit(victim, noise_scale=1.0).headline["alarm"] == 0
    assert audit(victim, noise_scale=0.05).headline["alarm"] == 1


def test_findings_agree_with_each_other():
    found = audit(audited(*CENTRAL, "rounds=2"), noise_scale=0.1)
    head = found.headline
    sizes = {name: len(values) for name, values in found.arrays.items()}
    assert sum(sizes.values()) == head["canaries"] == 200
    rows = {f.target: (f.subject, f.value) for f in found.figures}
    inside = np.array([rows[i][0] == "canary in" for i in range(200)])
    scores = np.array([rows[i][1] for i in range(200)])
    assert scores[inside].tolist() == found.arrays["scores_in"].tolist()
    counts = guessed(scores, inside, (20, 60, 120), 0.05).counts
    for guesses, right in counts:
        assert head[f"right_of_{guesses}_guesses"] == right
        assert f"{right} of {guesses}" in found.conclusions[0]
    assert head["epsilon_lower_bound"] > head["epsilon_lower_bound_any_mechanism"]


def test_the_same_audit_gives_the_same_findings():
    one, other = (audit(audited(*EXAMPLES, "rounds=1")) for _ in range(2))
    assert one.headline == other.headline
    assert one.figures == other.figures


def test_an_audit_too_small_for_the_claim_says_so():
    found = audit(audited(*CENTRAL, "privacy.noise_multiplier=1.0"), canaries=10)
    assert found.headline["alarm"] == 0
    assert any("could not have raised the alarm" in sentence for sentence in found.conclusions)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("privacy=none",), r"^privacy=.*NoPrivacy: claims no finite epsilon"),
        ((*EXAMPLES, "channel=secure_aggregation"), r"^channel=.*audits need channel=plain"),
        (("channel=secure_skellam", "aggregator.weighting=uniform"), r"^channel="),
    ],
)
def test_runs_that_cannot_be_audited(overrides, message):
    with pytest.raises(InputError, match=message):
        audit(audited(*overrides))


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"canaries": 1}, "canaries"),
        ({"canary": "bird"}, "canary"),
        ({"guesses": 40}, "guesses"),
        ({"guesses": ()}, "guesses"),
        ({"guesses": (0.1, 0.0)}, "guesses"),
        ({"guesses": (0.1, 40)}, "guesses"),
        ({"confidence": 1.0}, "confidence"),
        ({"noise_scale": 0.0}, "noise_scale"),
        ({"noise_scale": float("nan")}, "noise_scale"),
        ({"strength": -1.0}, "strength"),
        ({"others": -1}, "others"),
    ],
)
def test_settings_that_are_refused(changed, key):
    with pytest.raises(InputError, match=f"^{key}="):
        audit(None, **changed)


def test_the_yaml_holds_every_setting():
    node = OmegaConf.load(CONF / "leakage" / "audit.yaml").audit
    study = instantiate(node)
    assert isinstance(study, OneRunAudit)
    assert set(node) == {"_target_", *(field.name for field in fields(OneRunAudit))}
    assert study.noise_scale == 1.0
