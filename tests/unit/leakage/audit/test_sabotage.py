"""What the audits say of five ways to break a mechanism, as a table of expected verdicts.

The claim is the one that was recorded with the run. The mechanism is broken in the experiment, as a
mistake in its code would break it, and nobody tells the ledger.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from fedexp.commands.studies import leak
from fedexp.core.checks import InputError
from fedexp.federation.sampling import Full
from fedexp.leakage.audit.many_runs import gaussian_lower_bound
from fedexp.leakage.audit.power import power
from fedexp.leakage.audit.repeated import ManyRunsAudit
from fedexp.leakage.audit.study import OneRunAudit
from fedexp.leakage.study import SaysBeforehand
from fedexp.privacy.accounting import gaussian_epsilon
from tests.support.audited_victims import CENTRAL as MODEST
from tests.support.audited_victims import audited

MANY = ManyRunsAudit(runs=100, confidence=0.95, noise_scale=1.0)
ONE = OneRunAudit(
    canary="gradient",
    canaries=200,
    guesses=(0.1, 0.3, 0.6),
    confidence=0.95,
    noise_scale=1.0,
    strength=10.0,
    others=256,
)
Z, ROUNDS, DELTA = 1.0, 2, 1e-3
CLAIMED = gaussian_epsilon(Z, DELTA, ROUNDS)  # 4.9: the worlds lie 1.41 deviations apart
CENTRAL = (
    *("privacy=client_dp", f"privacy.noise_multiplier={Z}", f"privacy.delta={DELTA}", "rounds=2"),
    *("model.hidden=[4]", "n_clients=5", "sampler=full", "privacy.accountant=prv"),
)


@dataclass(frozen=True)
class Broken:
    """Client-level DP with a mistake; all else as the mechanism inside."""

    inside: Any
    releases_every_round = True
    row_order = 2

    @property
    def row_bound(self):
        return self.inside.row_bound

    def with_noise(self, scale):
        return replace(self, inside=self.inside.with_noise(scale))

    def for_members(self, n, n_all):
        return replace(self, inside=self.inside.for_members(n, n_all))

    def init(self, d):
        return self.inside.init(d)

    def on_client(self, updates, state, rng):
        return self.inside.on_client(updates, state, rng)

    def on_receipt(self, updates, state):
        return self.inside.on_receipt(updates, state)

    def on_step(self, step, updates, state, rng):
        return self.inside.on_step(step, updates, state, rng)


class NoClipping(Broken):
    """Rows three times as long as they may be."""

    def on_receipt(self, updates, state):
        received = self.inside.on_receipt(updates, state)
        return received.with_matrix(3.0 * received.matrix)


class WrongDivisor(Broken):
    """Divides by how many answered, in the place of the fixed number."""

    def on_step(self, step, updates, state, rng):
        scale = self.inside.expected_cohort / max(len(updates), 1)
        released, state = self.inside.on_step(step * scale, updates, state, rng)
        return released, state


class SameNoise(Broken):
    """Draws its noise in the first round, and uses it again."""

    def init(self, d):
        return {**self.inside.init(d), "noise": torch.zeros(d), "drawn": torch.zeros(())}

    def on_step(self, step, updates, state, rng):
        noise = state["noise"]
        if not state["drawn"]:
            noise = self.inside.on_step(torch.zeros_like(step), updates, state, rng)[0]
        plain = step * (len(updates) / self.inside.expected_cohort)
        return plain + noise, {**state, "noise": noise, "drawn": torch.ones(())}


SABOTAGE = {
    "honest": lambda privacy: privacy,
    "noise / 2": lambda privacy: privacy.with_noise(1 / 2),
    "noise / 4": lambda privacy: privacy.with_noise(1 / 4),
    "no clipping": NoClipping,
    "wrong divisor": WrongDivisor,
    "the same noise in each step": SameNoise,
}
LATER = ("noise / 4", "no clipping", "wrong divisor")
TABLE = [pytest.param(name, marks=[pytest.mark.slow] if name in LATER else []) for name in SABOTAGE]


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    promise = {"epsilon": CLAIMED, "delta": DELTA, "adjacency": "add_remove"}
    (folder / "summary.json").write_text(json.dumps({"privacy": promise}))
    return replace(audited(*CENTRAL), folder=folder)


def broken(victim, name):
    exp = victim.experiment
    privacy = SABOTAGE[name](exp.server.privacy)
    return replace(victim, experiment=replace(exp, server=replace(exp.server, privacy=privacy)))


def ignore(share):
    pass


@pytest.mark.parametrize("name", TABLE)
def test_many_runs_see_all_of_them_and_nothing_else(victim, name):
    found = MANY(broken(victim, name), ignore)
    assert found.headline["epsilon_claimed"] == pytest.approx(CLAIMED)
    assert bool(found.headline["alarm"]) == (name != "honest"), found.conclusions
    start = "No contradiction" if name == "honest" else "ALARM: the claim is ruled out"
    assert found.conclusions[0].startswith(start)


def test_one_run_does_not_see_half_of_the_noise_and_says_so(tmp_path):
    """Of a claim of 1, 200 canaries see 0.3 of the noise at best; see `test_audit`."""
    modest = audited(*MODEST, "rounds=2", "privacy.noise_multiplier=5.3")
    state = modest.experiment.account.init()
    for _ in range(2):
        state = modest.experiment.account.at_most(state, range(10))
    promise = modest.experiment.account.statement(state)
    (tmp_path / "summary.json").write_text(json.dumps({"privacy": promise}))
    modest = replace(modest, folder=tmp_path)
    said = ONE.beforehand(modest)
    assert "120 guesses about 200 canaries; at best it sees noise of 0.3 times" in said
    halved = broken(modest, "noise / 2")
    alarms = [ONE(replace(halved, seed=seed), ignore).headline["alarm"] for seed in range(5)]
    assert sum(alarms) <= 2  # which ones, the noise decides


def test_the_claim_is_the_recorded_one_and_not_what_the_ledger_says_now(victim, tmp_path):
    """The run that was found: sampled by another rate than epsilon was printed for."""
    promise = {"epsilon": CLAIMED / 6, "delta": DELTA, "adjacency": "add_remove"}
    (tmp_path / "summary.json").write_text(json.dumps({"privacy": promise}))
    wrong = replace(victim, folder=tmp_path)
    found = MANY(wrong, ignore)
    assert found.headline["epsilon_claimed"] == pytest.approx(CLAIMED / 6)
    assert found.headline["epsilon_of_the_ledger"] >= CLAIMED
    assert found.headline["alarm"] == 1
    assert any("either the record is wrong" in sentence for sentence in found.conclusions)


@pytest.mark.slow
def test_a_rate_that_is_not_kept(tmp_path):
    """Epsilon for one client in fifty, and everybody takes part: the bound is for any mechanism."""
    sampled = audited(
        *(*CENTRAL, "sampler=poisson", "n_clients=50", "sampler.cohort_size=1"),
        "privacy.noise_multiplier=0.5",
    )
    exp = sampled.experiment
    state = exp.account.init()
    for _ in range(exp.rounds):
        state = exp.account.at_most(state, [])
    promise = exp.account.statement(state)
    assert promise["epsilon"] < 2
    (tmp_path / "summary.json").write_text(json.dumps({"privacy": promise}))
    honest, more = replace(sampled, folder=tmp_path), replace(MANY, runs=200)
    assert more(honest, ignore).headline["alarm"] == 0
    everybody = replace(honest, experiment=replace(exp, sampler=Full(50)))
    assert more(everybody, ignore).headline["alarm"] == 1


def test_the_power_is_said_beforehand(victim):
    for study in (ONE, MANY):
        assert isinstance(study, SaysBeforehand)
    assert "noise of 0.5 times what is claimed" in MANY.beforehand(victim)
    nothing = replace(ONE, canaries=20).beforehand(victim)
    assert "about 20 canaries could rule out the recorded epsilon 4.85" in nothing
    assert "leakage=audit_many_runs" in nothing


def test_power_is_the_largest_share_of_the_noise_that_shows():
    rng = np.random.default_rng(0)
    found = power(lambda share, rng: share < 0.4, rng)
    assert (found.share, found.seen) == (0.3, 1.0)
    assert power(lambda share, rng: False, rng).share is None


def test_the_gaussian_bound_holds_and_is_near():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        scores = rng.standard_normal((2, 400))
        found.append(gaussian_lower_bound(scores[0] + 1.5, scores[1], 0.95, rng))
    assert np.mean(np.array(found) > 1.5) <= 0.1
    assert np.mean(found) > 1.0
    assert gaussian_lower_bound(np.zeros(50), np.zeros(50), 0.95, rng) == 0


def test_local_noise_is_audited_too():
    local = audited(
        *("privacy=local_gaussian", "privacy.noise_multiplier=2", "privacy.delta=1e-3"),
        *("privacy.epsilon_per_release=null", "privacy.delta_per_release=null"),
        *("model.hidden=[4]", "n_clients=5", "rounds=2", "privacy.accountant=rdp"),
    )
    assert MANY(local, ignore).headline["alarm"] == 0
    found = replace(MANY, noise_scale=0.25)(local, ignore)
    assert found.headline["alarm"] == 1
    assert "No claim was recorded with the run" in " ".join(found.conclusions)
    assert any("Sabotaged on purpose" in sentence for sentence in found.conclusions)


def test_noise_in_the_steps_is_refused_with_the_way_out():
    examples = audited("privacy=dp_sgd", "privacy.noise_multiplier=2", "model.hidden=[4]")
    with pytest.raises(InputError, match="use leakage=audit"):
        MANY(examples, ignore)
    with pytest.raises(InputError, match="claims no finite epsilon"):
        MANY(audited("model.hidden=[4]"), ignore)


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    import fedexp

    run = fedexp.run([*CENTRAL, "backend=in_process", "plots=false", f"hydra.run.dir={tmp_path}/r"])
    said = leak(
        run.folder, ["leakage=audit_many_runs", "leakage.audit_many_runs.runs=100"], None, False
    )
    headline = json.loads((run.folder / "summary.json").read_text())["leakage"]["audit_many_runs"]
    assert headline["epsilon_claimed"] == run.summary["privacy"]["epsilon"]
    assert headline["alarm"] == 0
    assert "leakage_audit_many_runs.png" in said
