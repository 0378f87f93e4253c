"""A partition that somebody else wrote is refused where a client or a row would be wronged."""

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import OwnPart, Partition
from fedexp.partition.check import checked, patients_apart
from tests.support.composing import config_for
from tests.support.own_data import MODULE

TRAIN = Split(torch.zeros(10, 2), torch.arange(10) % 3)


def received(*shards, train=TRAIN, n_clients=None):
    partition = Partition(train, tuple(shards))
    return checked(partition, TRAIN, n_clients or len(shards), "Mine")


def test_shards_come_out_sorted_int64_and_as_many_as_there_were():
    readable = np.frombuffer(np.array([2, 5]).tobytes(), np.int64)
    partition = received([4, 0, 9], np.array([8, 1], np.uint8), readable)
    assert [shard.tolist() for shard in partition.shards] == [[0, 4, 9], [1, 8], [2, 5]]
    assert all(shard.dtype == np.int64 and shard.flags.writeable for shard in partition.shards)
    assert partition.train is TRAIN


FAULTS = {
    "overlap": (([0, 1, 7], [7, 2], [3, 0]), "gave row 7 to clients 0 and 1: 1 row"),
    "far apart": (([0, 1], [2], [1, 0, 5]), "gave row 0 to clients 0 and 2: 2 row"),
    "empty": (([0, 1], [], [2]), "left client 1 without an example"),
    "twice": (([0, 1], [5, 3, 5]), "gave client 1 row 5 more than once"),
    "too far": (([0, 10],), "gave client 0 row 10, and rows are 0 to 9"),
    "negative": (([0], [-1, 4]), "gave client 1 row -1, and rows are 0 to 9"),
    "marks": ((np.ones(10, dtype=bool),), "gave client 0 no list of whole row numbers"),
    "fractions": (([0.5],), "gave client 0 no list"),
    "a table": ((np.zeros((2, 2), int),), "gave client 0 no list"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_wrong_a_client_is_refused(fault):
    shards, message = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        received(*shards)
    assert str(caught.value).startswith("partition=Mine: ")
    assert message in str(caught.value)


def test_too_many_shards_another_training_part_and_no_partition_are_refused():
    with pytest.raises(InputError, match="gave 2 shards to 3 clients"):
        received([0], [1], n_clients=3)
    with pytest.raises(InputError, match=r"changed the training part from \[10, 2\] to \[9, 2\]"):
        received([0], train=TRAIN.between(0, 9))
    with pytest.raises(InputError, match="must return a Partition, and returned a list"):
        checked([[0]], TRAIN, 1, "Mine")


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (TRAIN.x, TRAIN.y + 1, "made a label 3, which no example of the training part has"),
        (TRAIN.x, TRAIN.y - 1, "made a label -1, which"),
        (TRAIN.x, TRAIN.y.float(), "made float32 of labels that are int64"),
        (TRAIN.x / 0, TRAIN.y, "made values that are not finite of the examples"),
    ],
)
def test_what_cannot_be_trained_on_is_the_partitions(x, y, said):
    with pytest.raises(InputError, match=f"^partition=Mine: {said}"):
        received([0], train=Split(x, y))


def test_a_partition_may_exchange_labels():
    assert received([0], train=Split(TRAIN.x + 1, TRAIN.y.flip(0))).changed


def config(fault, *overrides):
    whole = config_for("n_clients=5", *overrides)
    return whole | {
        "partition": {"_target_": f"{MODULE}.Wrong", "fault": fault},
        "trust": ["tests."],
    }


def test_an_own_partition_that_overlaps_is_not_trained_on():
    with pytest.raises(InputError, match=r"^partition=Wrong: gave row 3 to clients 0 and 1"):
        build(config("overlap", "attack=label_flip"))


def test_an_own_partition_in_another_order_is_sorted():
    built = build(config("unsorted"))
    assert all((np.diff(shard) > 0).all() for shard in built.partition.shards)
    assert built.partition.shards[0][0] == 0


def test_patients_whom_several_clients_hold_are_counted():
    x, y = torch.zeros(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64)
    train = Split(x, y, subject=torch.tensor([0, 0, 1, 1, 2, -1]))
    assert patients_apart([np.array([0, 2, 3]), np.array([1, 4, 5])], train) == (
        "1 of 3 patients have examples with several clients; what is promised for an example or a "
        "client is not promised for a patient",
    )
    assert patients_apart([np.array([0, 1, 5]), np.array([2, 3, 4])], train) == ()
    assert patients_apart([np.arange(3), np.arange(3, 6)], Split(x, y)) == ()


def test_shards_that_are_no_sequence_are_refused():
    for shards in (5, (shard for shard in ([0], [1]))):
        with pytest.raises(InputError, match=r"^partition=Mine: must return a sequence of"):
            checked(Partition(TRAIN, shards), TRAIN, 2, "Mine")


def test_names_of_clients_are_text():
    """A verdict that was written with numbers could not be read."""
    with pytest.raises(InputError, match=r"^partition=Mine: must name its clients by text"):
        checked(Partition(TRAIN, ([0], [1]), names=(0, 1)), TRAIN, 2, "Mine")


def own_patients(own):
    partition = Partition(TRAIN, ([0], [1]), own=lambda part, name: own)
    return checked(partition, TRAIN, 2, "Mine").own(TRAIN, "test")


def test_own_patients_are_rows_of_the_part_each_once():
    own = own_patients(OwnPart(TRAIN, ([4, 0], [])))
    assert [rows.tolist() for rows in own.rows] == [[0, 4], []]
    for given, words in (
        (OwnPart(TRAIN, ([0], [-1])), "gave client 1 other than rows 0 to 9"),
        (OwnPart(TRAIN, ([0], [10])), "gave client 1 other than rows 0 to 9"),
        (OwnPart(TRAIN, ([3, 3], [1])), "gave client 0 row 3 more than once"),
        (OwnPart(TRAIN, ([0],)), "gave 1 lists of rows to 2 clients"),
        (OwnPart(TRAIN.rows([0]), ([0], [0])), "gave 1 examples for 10"),
        (None, "gave a NoneType"),
    ):
        with pytest.raises(InputError, match=rf"^partition=Mine: {words}.* own patients of test"):
            own_patients(given)


def test_a_partition_that_writes_to_the_examples_is_refused():
    with pytest.raises(InputError, match=r"^partition=Wrong: changes the examples"):
        build(config("relabels"))
