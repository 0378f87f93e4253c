import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.partition.classes import Classes
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()


def split(*sizes):
    """A training part with `sizes[c]` rows of class c."""
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return Split(torch.zeros(len(y), 1, 2, 2), y)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("n_clients", [3, 10, 23])
def test_exactly_k_classes_and_holders_as_even_as_possible(k, n_clients):
    held = Classes(k)(split(*[40] * 10), n_clients, rng()).label_counts(10, TASK) > 0
    assert (held.sum(axis=1) == k).all()
    assert np.ptp(held.sum(axis=0)) <= 1


def test_every_class_has_a_holder_as_soon_as_there_are_enough_places():
    for seed in range(20):
        counts = Classes(2)(split(*[9] * 10), 5, rng(seed)).label_counts(10, TASK)
        assert (counts.sum(axis=0) == 9).all()


def test_a_class_is_split_evenly_among_its_holders():
    # Four clients with both classes: 10 = 2 + 3 + 2 + 3, 4 = 1 + 1 + 1 + 1.
    counts = Classes(2)(split(10, 4), 4, rng()).label_counts(2, TASK)
    assert sorted(counts[:, 0]) == [2, 2, 3, 3]
    assert counts[:, 1].tolist() == [1, 1, 1, 1]


def test_examples_of_classes_that_nobody_holds_are_left_out():
    partition = Classes(1)(split(5, 5, 5), 2, rng())
    assert sorted(partition.label_counts(3, TASK).sum(axis=0)) == [0, 5, 5]


def test_pairs_of_classes_are_not_always_the_same():
    pairs = set()
    for seed in range(40):
        held = Classes(2)(split(5, 5, 5, 5), 2, rng(seed)).label_counts(4, TASK) > 0
        pairs.update(tuple(np.flatnonzero(row).tolist()) for row in held)
    assert len(pairs) == 6


def test_absent_labels_are_no_classes():
    train = Split(torch.zeros(6, 1, 2, 2), torch.tensor([2, 2, 2, 8, 8, 8]))
    assert (Classes(2)(train, 3, rng()).label_counts(9, TASK)[:, [2, 8]] == 1).all()
    with pytest.raises(InputError, match=r"classes_per_client=3: .* has 2 classes: use at most 2"):
        Classes(3)(train, 3, rng())


def test_fewer_examples_than_holders_and_no_classes_are_refused():
    with pytest.raises(
        InputError, match="classes_per_client=2: class 1 has 3 examples and 4 of 4 clients"
    ):
        Classes(2)(split(10, 3), 4, rng())
    with pytest.raises(InputError, match="classes_per_client=0"):
        Classes(0)


def test_classes_drawn_freely_may_stay_with_nobody():
    free, absent, stream = Classes(2, "free"), [], rng()
    for _ in range(400):
        held = free._assign(10, 10, stream)
        assert (held.sum(axis=1) == 2).all()
        absent.append((held.sum(axis=0) == 0).sum())
    # A class is drawn by none of 10 clients with probability 0.8^10 = 0.107.
    assert np.mean(absent) == pytest.approx(10 * 0.8**10, abs=4 * 0.95 / np.sqrt(400))
    partition = free(split(*[40] * 10), 10, rng(1))
    held = free._assign(10, 10, rng(1)).any(axis=0)
    counts = partition.label_counts(10, TASK).sum(axis=0)
    assert counts.tolist() == (40 * held).tolist()
    with pytest.raises(InputError, match="assignment=luck: Allowed: even, free"):
        Classes(2, "luck")
