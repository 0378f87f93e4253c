import hashlib
import json
import math
import struct

import numpy as np
import pytest
import torch

from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.core.shards import partition_hash
from fedexp.partition.document import label_skew, partition_document
from fedexp.tasks.multiclass import Multiclass

TASK = Multiclass()


@pytest.fixture
def partition():
    y = torch.tensor([0, 0, 1, 1, 1, 2])
    return Partition(
        Split(torch.zeros(6, 1, 2, 2), y), (np.array([0, 1, 2]), np.array([3]), np.array([4]))
    )


def test_document_by_hand_and_through_json(partition):
    document = json.loads(json.dumps(partition_document(partition, ("a", "b", "c"), TASK)))
    assert document["n_clients"] == 3
    assert document["class_names"] == ["a", "b", "c"]
    assert document["sizes"] == [3, 1, 1]
    assert document["counts"] == [[2, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert document["left_out"] == 1
    assert document["indices"] == [[0, 1, 2], [3], [4]]
    # Dealt mix (2, 3, 0)/5 against (2, 1, 0)/3 and twice (0, 1, 0): 4/15, 2/5, 2/5.
    skew = document["skew"]
    assert skew["mean_total_variation_distance"] == pytest.approx((4 / 15 + 2 / 5 + 2 / 5) / 3)
    effective = 3 / 2 ** (2 / 3)  # exp of (2/3) log(3/2) + (1/3) log 3
    assert skew["mean_effective_classes"] == pytest.approx((effective + 1 + 1) / 3)
    # Sizes 3, 1, 1: mean 5/3, variance (16 + 4 + 4)/27.
    assert skew["size_coefficient_of_variation"] == pytest.approx(math.sqrt(24 / 27) / (5 / 3))


def test_hash_is_what_its_description_says(partition):
    packed = struct.pack("<4q", 3, 0, 1, 2) + struct.pack("<2q", 1, 3) + struct.pack("<2q", 1, 4)
    assert partition_hash(partition.shards) == hashlib.sha256(packed).hexdigest()
    assert partition_document(partition, "abc", TASK)["hash"] == partition_hash(partition.shards)


def test_hash_tells_apart_other_owners_and_other_cuts():
    cuts = [([0, 1], [2]), ([0], [1, 2]), ([2], [0, 1]), ([0, 1, 2],)]
    assert len({partition_hash([np.array(s) for s in shards]) for shards in cuts}) == len(cuts)


def test_skew_of_an_even_deal_over_four_classes():
    assert label_skew(np.full((3, 4), 5)) == pytest.approx((0.0, 4.0))
