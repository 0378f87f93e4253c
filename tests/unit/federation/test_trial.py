"""What an adversary finds out before it sends: what then comes of it, followed by hand."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedexp.core.types import Verdict
from fedexp.federation.rounds import run_round
from fedexp.federation.trial import LossOnValidation
from fedexp.federation.update_validation import StandardValidation
from fedexp.tasks.multiclass import Multiclass
from tests.support.toy_rounds import experiment, start_of

# Clients 0 and 1 send 2 and 6, with weights 3/4 and 1/4; the second one is malicious.


@dataclass
class Tries:
    """An attack that asks what a row of 10 would do, and sends it."""

    knows_validation: bool = True
    knows_detector: bool = False

    def rewrite(self, updates, malicious, rule, rng):
        rows = updates.matrix.clone()
        rows[malicious] = 10.0
        outcome, self.step = rule.outcome(rows), float(rule(rows)[0])
        self.foreseen = outcome.loss
        assert float(outcome.step[0]) == self.foreseen  # from a model at 0
        return updates.with_matrix(rows)


class Suspicious:
    """A detector that trusts nobody who sends more than 5, and counts its calls."""

    def init(self, d):
        return {"calls": torch.zeros(1)}

    def __call__(self, updates, state, rng):
        scores = updates.matrix[:, 0].double()
        return Verdict(scores, 5.0, (scores <= 5).double()), {"calls": state["calls"] + 1}


class Params:
    """What is bad of a model is its one parameter."""

    def __call__(self, backend, models):
        return sum(float(model) for model in models)


def tried(attack, **changes):
    """What the attack foresaw, and the model that came of it."""
    exp = experiment(attack=attack, malicious=np.array([False, True]), judge=Params(), **changes)
    state, _ = run_round(exp, start_of(exp))
    return attack.foreseen, float(state.params), state


def test_the_model_foreseen_is_the_one_that_comes():
    foreseen, came, _ = tried(Tries())
    assert foreseen == came == 0.75 * 2 + 0.25 * 10


def test_a_detector_is_foreseen_by_who_knows_it_alone():
    surprised, came, state = tried(Tries(), detector=Suspicious())
    assert (surprised, came) == (4.0, 2.0)
    foreseen, _, _ = tried(Tries(knows_detector=True), detector=Suspicious())
    assert foreseen == 2.0
    assert state.detector["calls"].tolist() == [1.0]  # a trial leaves no trace


def test_validation_is_foreseen_unless_the_attack_says_that_it_is_not():
    capped = StandardValidation(norm_cap=4.0)
    assert tried(Tries(), update_validation=capped)[:2] == (2.0, 2.0)
    attack = Tries(knows_validation=False)
    assert tried(attack, update_validation=capped)[:2] == (4.0, 2.0)
    assert attack.step == 4.0


def test_a_round_that_would_move_nothing_leaves_the_model_as_it_is():
    foreseen, came, _ = tried(Tries(), min_clients=3)
    assert foreseen == came == 0.0


def test_they_are_judged_by_the_mean_loss_of_the_models():
    class Answers:
        def evaluate(self, models, split):
            assert split == "validation"
            return list(models)

    y = torch.tensor([0, 1])
    sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    unsure = torch.zeros(2, 2)
    judge = LossOnValidation(Multiclass(), y)
    assert judge(Answers(), [sure, unsure]) == pytest.approx(math.log(2) / 2)
    assert math.isnan(judge(Answers(), [torch.full((2, 2), math.nan)]))
