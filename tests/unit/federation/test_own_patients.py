"""Whose patients are whose, and how they are drawn where nobody knows."""

import numpy as np
import pytest
import torch

from fedexp.core.examples import Split
from fedexp.core.partition import OwnPart, Partition
from fedexp.core.rng import generator
from fedexp.federation.own_patients import OwnPatients, in_mix
from fedexp.partition.feature import Feature


def part(y):
    y = torch.tensor(y)
    return Split(torch.rand(len(y), 1, 4, 4, generator=torch.Generator().manual_seed(0)), y)


def test_rows_come_in_the_clients_mix_and_as_many_as_there_are():
    y = np.array([0] * 10 + [1] * 10 + [2] * 10)
    rows = in_mix(y, np.array([0.5, 0.25, 0.25]), generator(0, "x"))
    assert np.bincount(y[rows]).tolist() == [10, 5, 5]
    assert (np.diff(rows) > 0).all()


def test_a_class_that_the_part_lacks_is_left_out():
    rows = in_mix(np.array([0, 0, 1]), np.array([0.4, 0.0, 0.6]), generator(0, "x"))
    assert rows.tolist() == [0, 1]
    assert len(in_mix(np.array([0, 0]), np.array([0.0, 1.0]), generator(0, "x"))) == 0


def test_what_a_partition_knows_is_taken():
    test = part([0, 1, 0, 1])
    rows = (np.array([0, 1]), np.array([2, 3]))
    partition = Partition(test, rows, own=lambda p, name: OwnPart(p, rows))
    own = OwnPatients(partition, {"test": test}, np.full((2, 2), 0.5), 0)
    assert own.are_known
    assert own.scopes == {"test": "test"}
    assert own.seen_otherwise() == {}
    assert own.of["test"].rows is rows


def test_without_classes_anybodys_patients_are_everybodys():
    labels = Split(torch.zeros(3, 2), torch.ones(3, 4, dtype=torch.uint8))
    own = OwnPatients(Partition(labels, ()), {"test": labels}, np.zeros((2, 4)), 0)
    assert [rows.tolist() for rows in own.of["test"].rows] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("shift", ["mixed", "rotation", "noise"])
def test_a_scanner_is_in_the_test_images_too(shift):
    train, test = part([0, 1] * 30), part([0, 1] * 10)
    made = Feature(shift, 1.0, 90.0, 0.8, 1.5, 0.3)(train, 4, generator(0, "partition"))
    own = OwnPatients(made, {"test": test}, np.full((4, 2), 0.5), 0)
    seen = own.of["test"]
    assert own.scopes == {"test": "own_test"}
    assert sorted(np.concatenate(seen.rows).tolist()) == list(range(20))
    untouched = [bool(torch.equal(seen.part.x[r], test.x[r])) for r in seen.rows]
    train_untouched = [bool(torch.equal(made.train.x[s], train.x[s])) for s in made.shards]
    assert untouched == train_untouched
    assert untouched.count(True) == 1
    assert torch.equal(made.own(test, "test").part.x, seen.part.x)  # asked again, the same
