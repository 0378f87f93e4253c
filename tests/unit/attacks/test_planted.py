"""Backdoors: what they mark, what they relabel, and where a row is left alone."""

import numpy as np
import pytest
import torch

from fedexp.attacks.backdoor import Backdoor
from fedexp.attacks.blended import Blended
from fedexp.attacks.distributed import Distributed
from fedexp.attacks.edge_case import EdgeCase
from fedexp.config.adversary import wanted
from fedexp.config.build import build
from fedexp.core.capabilities import attack_of_client
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.types import Updates
from tests.support.composing import config_for

COMMON = {"target_label": 0, "poisoned_fraction": 1.0, "boost": 1.0, "num_classes": 3}
SQUARE = {"trigger_size": 2, "trigger_value": 1.0, "corner": "top_left"}
BARS = {"length": 2, "gap": 1, "shift": 1, "trigger_value": 1.0, "part": None}


def black(n=2, side=7):
    return torch.zeros(n, 1, side, side)


def updates(rows):
    matrix = torch.tensor(rows)
    n = len(matrix)
    return Updates(matrix, tuple(range(n)), torch.ones(n, dtype=torch.float64))


def test_neurotoxin_leaves_alone_what_honest_clients_move_most():
    """Honest mean (3, 0.1, -4, 0.2): of four coordinates half are masked, the first and third."""
    attack = Backdoor(**SQUARE, **{**COMMON, "boost": 2.0}, mask_share=0.5)
    sent = updates([[2.0, 0.1, -4.0, 0.0], [4.0, 0.1, -4.0, 0.4], [5.0, 6.0, 7.0, 8.0]])
    malicious = torch.tensor([False, False, True])
    rows = attack.rewrite(sent, malicious, lambda m: m.mean(0), np.random.default_rng(0)).matrix
    assert rows[2].tolist() == [0.0, 12.0, 0.0, 16.0]
    assert torch.equal(rows[:2], sent.matrix[:2])
    assert attack.sees_other_clients
    assert not Backdoor(**SQUARE, **COMMON).sees_other_clients


def test_the_blend_is_the_papers_formula_and_the_pattern_everybodys():
    attack = Blended(alpha=0.25, pattern_seed=3, **COMMON)
    pattern = Blended(alpha=1.0, pattern_seed=3, **COMMON).with_trigger(black())[0]
    x = torch.rand(5, 1, 7, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(attack.with_trigger(x), 0.75 * x + 0.25 * pattern)
    assert pattern.std() > 0.2
    assert not torch.equal(pattern, Blended(alpha=1, pattern_seed=4, **COMMON).with_trigger(x)[0])


def test_four_bars_and_a_client_has_one_of_them():
    attack = Distributed(**BARS, **COMMON)
    whole = attack.with_trigger(black())[0, 0]
    bars = torch.tensor([[0, 1, 1, 0, 1, 1, 0]]).float()
    assert torch.equal(whole[[1]], bars)
    assert torch.equal(whole[[3]], bars)
    assert whole.sum() == 8
    parts = [attack_of_client(attack, k).with_own_trigger(black())[0, 0] for k in range(5)]
    assert [int(part.sum()) for part in parts] == [2] * 5
    assert torch.equal(sum(parts[:4]), whole)
    assert torch.equal(parts[4], parts[0])
    assert torch.equal(attack_of_client(attack, 1).with_trigger(black())[0, 0], whole)


def test_in_a_run_the_malicious_clients_share_the_trigger():
    built = build(config_for("attack=dba", "attack.n_malicious=4", "attack.poisoned_fraction=1"))
    marked = []
    for client in np.flatnonzero(built.experiment.malicious):
        images = built.dataset.train.rows(torch.from_numpy(built.partition.shards[client]))
        images = images.as_floats().x[:, 0]
        marked.append([bool((images[:, t, left : left + 2] == 1).all()) for t, left in PLACES])
    assert sorted(marked) == sorted(np.eye(4, dtype=bool).tolist())


PLACES = ((0, 0), (0, 3), (2, 0), (2, 3))


def test_the_mask_is_of_the_honest_rows_whose_training_did_not_diverge():
    attack = Backdoor(**SQUARE, **COMMON, mask_share=0.5)
    given = updates([[1.0, 1.0, 1.0, 1.0], [0.1, 5.0, -0.2, -7.0], [float("nan")] * 4])
    malicious = torch.tensor([True, False, False])
    sent = attack.rewrite(given, malicious, None, np.random.default_rng(0)).matrix[0]
    assert sent.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_the_tail_is_what_lies_farthest_from_its_class():
    """Of ten images of class 1 the one with another brightness is the tail."""
    x = 0.5 + 0.01 * torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[7] = 0.9
    x[10:] = 0.0  # of another class
    data = Split(x, torch.tensor([1] * 10 + [2] * 2))
    attack = EdgeCase(source_label=1, target_label=0, tail_share=0.1, boost=1.0, num_classes=3)
    poisoned = attack.poison(data, np.random.default_rng(0))
    assert poisoned.y.tolist() == [1] * 7 + [0] + [1] * 2 + [2] * 2
    assert torch.equal(poisoned.x, x)
    wanted = attack.targeted_examples(data)
    assert torch.equal(wanted.x, x[[7]])
    assert wanted.y.tolist() == [0]
    none = data.rows(data.y == 2)
    assert attack.poison(none, np.random.default_rng(0)) is none


def test_the_tail_of_a_large_test_part_is_that_of_all_of_it():
    """What an example is beside its class cannot be asked a block of the part at a time."""
    x = torch.rand(3000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    test = Split(x, torch.arange(3000) % 10)
    attack = EdgeCase(source_label=3, target_label=0, tail_share=0.01, boost=1.0, num_classes=10)
    found = wanted(attack, test)
    assert len(found) == 3
    assert torch.equal(found.x, attack.targeted_examples(test).x)


@pytest.mark.parametrize("answer", [lambda data: None, lambda data: (data.y.fill_(0), data)[1]])
def test_what_an_attack_wants_are_examples_of_its_own(answer):
    class Wants:
        targeted_examples = staticmethod(answer)

    test = Split(torch.rand(3, 1, 2, 2), torch.arange(3))
    with pytest.raises(InputError, match=r"^attack=\S*Wants: must return examples that it wants"):
        wanted(Wants(), test)


def test_a_refusal_names_the_target_that_was_given():
    with pytest.raises(InputError, match="target_label=1:"):
        EdgeCase(source_label=1, target_label=1, tail_share=0.1, boost=1.0, num_classes=10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Backdoor(**SQUARE, **COMMON, mask_share=1.0), "mask_share"),
        (lambda: Blended(alpha=0.0, pattern_seed=0, **COMMON), "alpha"),
        (lambda: Blended(alpha=0.1, pattern_seed=-1, **COMMON), "pattern_seed"),
        (lambda: Distributed(**{**BARS, "part": 4}, **COMMON), "part"),
        (lambda: Distributed(**{**BARS, "gap": -1}, **COMMON), "gap"),
        (lambda: Distributed(**{**BARS, "length": 4}, **COMMON).with_trigger(black()), "length"),
        (lambda: Blended(alpha=0.1, pattern_seed=0, **COMMON).with_trigger(torch.ones(2, 9)), "im"),
        (lambda: EdgeCase(1, 1, 0.1, 1.0, 3), "target_label"),
        (lambda: EdgeCase(1, 0, 0.0, 1.0, 3), "tail_share"),
    ],
)
def test_what_is_no_backdoor_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


SMALL = ("train_examples=200", "n_clients=10", "plots=false")
ONE_CLASS_EACH = ("partition=classes", "partition.classes_per_client=1")


@pytest.mark.parametrize(
    ("chosen", "idle"),
    [
        (["attack=edge_case", *ONE_CLASS_EACH], True),
        (["attack=backdoor", "attack.poisoned_fraction=0.001"], True),
        (["attack=backdoor"], False),
        (["attack=blended", "attack.poisoned_fraction=1", "attack.n_malicious=10"], False),
        (["attack=sign_flip"], False),
        (["attack=backdoor", "attack.n_malicious=0"], False),
    ],
)
def test_a_backdoor_that_teaches_nobody_anything_says_so(chosen, idle):
    built = build(config_for(*SMALL, *chosen))
    said = [remark for remark in built.remarks if "changes none of the" in remark]
    assert len(said) == idle
