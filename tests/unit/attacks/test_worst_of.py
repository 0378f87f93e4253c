"""The worst of several attacks: against a search through everything, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.attacks.alie import Alie
from fedexp.attacks.broken import Broken
from fedexp.attacks.ipm import Ipm
from fedexp.attacks.label_flip import LabelFlip
from fedexp.attacks.mimic import Mimic
from fedexp.attacks.sign_flip import SignFlip
from fedexp.attacks.worst_of import WorstOf
from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.types import Outcome
from fedexp.federation.rounds import initial_state, run_rounds
from tests.support.composing import config_for
from tests.support.refusing import refusal
from tests.support.updates import updates

ROWS = torch.tensor([[1.0, 2.0], [3.0, 0.0], [2.0, 1.0], [9.0, 9.0]])  # honest mean (2, 1)
LAST = torch.tensor([False, False, False, True])


NOISY = (
    "attack.members.hidden._target_=fedexp.attacks.noisy_labels.NoisyLabels",
    "+attack.members.hidden.noise_fraction=0.5",
    "+attack.members.hidden.num_classes=10",
)


class Server:
    """A rule and a harm that are known, and a book of what was tried."""

    def __init__(self, harm, step):
        self.harm_of, self.step_of, self.tried = harm, step, []

    def __call__(self, rows):
        return self.step_of(rows)

    def outcome(self, rows):
        self.tried.append(rows[3].tolist())
        return Outcome(self.step_of(rows), self.harm_of(rows[3].tolist()))


def forwards(rows):
    return rows[:3].mean(dim=0)


def sent(members, harm, probes=30, step=forwards):
    server = Server(harm, step)
    attack = WorstOf(members, probes, True, False)
    row = attack.rewrite(updates(ROWS), LAST, server, np.random.default_rng(0)).matrix[3]
    return row.tolist(), server.tried


def test_the_strength_is_that_of_a_search_through_all_of_them():
    """Rows (2, 1) (1 - 2 t): a harm that is largest at (-7, -3.5) asks for t = 2.25."""

    def harm(row):
        return -((row[0] + 7) ** 2) - (row[1] + 3.5) ** 2

    row, tried = sent({"turned": Ipm(1.0)}, harm)
    grid = np.arange(0.01, 20, 0.01)
    best = max(grid, key=lambda t: harm([2 * (1 - 2 * t), 1 - 2 * t]))
    assert best == pytest.approx(2.25)
    assert row == pytest.approx([2 * (1 - 2 * best), 1 - 2 * best], abs=0.05)
    assert tried[:3] == [[-2.0, -1.0], [-6.0, -3.0], [-14.0, -7.0]]  # t = 1, 2, 4


def test_no_member_as_it_is_does_more_and_it_is_sent_to_the_bit():
    members = {"turned": Ipm(1.0), "up": Alie(1.0, "up"), "flipped": SignFlip(1.0)}
    alone = {
        name: member.rewrite(updates(ROWS), LAST, None, None).matrix[3].tolist()
        for name, member in members.items()
    }
    for wanted in alone.values():
        row, _ = sent(members, lambda row, wanted=wanted: float(row == wanted))
        assert row == wanted


def test_the_budget_is_kept_and_goes_to_the_worst_and_the_next_against_the_mean():
    members = {"up": Alie(1.0, "up"), "turned": Ipm(1.0), "flipped": SignFlip(1.0)}
    _, tried = sent(members, lambda row: -sum(row), probes=7, step=lambda rows: rows[3])
    assert len(tried) == 7
    assert tried[3] == [2 + 2 * (-9 - 2), 1 + 2 * (-9 - 1)]  # the flipped row, twice as far
    assert tried[4] == [-6.0, -3.0]  # the turned mean, of the two others the one against it
    assert all(sum(row) < 0 for row in tried[3:])


def test_what_leaves_no_finite_model_is_never_chosen():
    def harm(row):
        return math.inf if row[0] < -10 else math.nan if math.isnan(row[0]) else -row[0]

    row, _ = sent({"broken": Broken(), "turned": Ipm(1.0)}, harm)
    assert -10 <= row[0] < -9


def test_a_small_step_back_goes_before_a_larger_loss():
    """The rule takes the malicious row up to a length of 2, and else goes on."""

    def step(rows):
        return rows[3] if rows[3].norm() < 2 else forwards(rows)

    row, _ = sent({"hidden": Ipm(0.1), "up": Alie(1.0, "up")}, lambda row: abs(sum(row)), step=step)
    assert row[0] < 0
    assert 1.8 < math.hypot(*row) < 2


def test_a_member_that_learns_over_the_rounds_does_so_sent_or_not():
    """A mimic's warm-up, beside a member that is sent in its place in every round."""
    g = torch.Generator().manual_seed(3)
    server = Server(lambda row: -row[0], forwards)
    members = {"copied": Mimic(None, warmup=3), "far": Ipm(1e3)}
    portfolio, alone = WorstOf(members, 2, True, False), Mimic(None, warmup=3)
    left, known = {}, {}
    for _ in range(5):
        rows, rng = updates(torch.rand(4, 9, generator=g)), np.random.default_rng
        made, left = portfolio.rewrite_remembering(rows, LAST, server, rng(0), left)
        _, known = alone.rewrite_remembering(rows, LAST, server, rng(0), known)
        assert made.matrix[3, 0] < -10  # the other's
        assert left.keys() == {f"copied.{name}" for name in known}
        assert all(torch.equal(left[f"copied.{name}"], there) for name, there in known.items())
    assert int(left["copied.rounds"]) == 3


def test_members_on_data_are_refused_by_name():
    attack = WorstOf({"labels": LabelFlip("complement", 3, 0, 1)}, 2, True, False)
    data = Split(torch.zeros(3, 1, 1, 1), torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match=r"members\.labels"):
        attack.poison(data, np.random.default_rng(0))


def test_a_budget_below_one_a_member_and_no_members_are_refused():
    members = {"up": Alie(1.0, "up"), "turned": Ipm(1.0)}
    with pytest.raises(InputError, match="probes=1"):
        WorstOf(members, 1, True, False)
    with pytest.raises(InputError, match="attacks by name, at least one"):
        WorstOf({}, 1, True, False)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("attack.members.copied=null",), "attack.members.copied=NoneType: is no attack"),
        (("attack.members.against.perturbation=left",), "attack.members.against.perturbation=left"),
        (
            (*NOISY, "~attack.members.hidden.epsilon"),
            "attack.members.hidden=NoisyLabels: changes what clients train on",
        ),
        (("privacy=client_dp",), "computes what malicious clients send from the others' updates"),
    ],
)
def test_refusals(overrides, words):
    assert words in refusal(config_for("attack=worst_of", "backend=in_process", *overrides))


@pytest.fixture(scope="module")
def built():
    small = ("train_examples=100", "rounds=1", "training.epochs=1", "n_clients=5")
    return build(config_for("attack=worst_of", "backend=in_process", *small))


def after(built, attack):
    """The loss on validation that an attack leaves, and the model."""
    exp = replace(built.experiment, attack=attack)
    *_, (state, _) = run_rounds(exp, initial_state(exp, vector_of(built.model)))
    return exp.judge(exp.backend, [state.params]), state.params


def test_a_mean_is_left_worse_than_by_any_member_and_the_same_every_time(built):
    attack = built.experiment.attack
    left, params = after(built, attack)
    assert torch.equal(after(built, attack)[1], params)
    assert len(attack.members) == 6
    assert left > max(after(built, member)[0] for member in attack.members.values())


def test_an_empty_validation_part_is_refused(built):
    nothing = built.loaded.validation.between(0, 0)
    with pytest.raises(InputError, match="tries rows on validation"):
        build(config_for("attack=worst_of"), replace(built.loaded, validation=nothing))
