"""Partitions that are told who gets what: exact sizes, a file, a share of similarity."""

import json
import random

import numpy as np
import pytest
import torch
from byzfl.fed_framework.data_distributor import DataDistributor
from torch.utils.data import Subset

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.partition.check import checked
from fedexp.partition.document import partition_document
from fedexp.partition.file import FromFile
from fedexp.partition.iid import Iid
from fedexp.partition.similarity import Similarity
from fedexp.partition.sizes import Sizes
from fedexp.tasks.multiclass import Multiclass


def split(n=90, classes=3, seed=0, site=None):
    y = torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))
    return Split(torch.zeros(n, 1, 2, 2), y, site=site)


def dealt(partitioner, train, n_clients, seed=0):
    partition = partitioner(train, n_clients, np.random.default_rng(seed))
    return checked(partition, train, n_clients, "it")


def rows(arrays):
    return [array.tolist() for array in arrays]


class TestSizes:
    def test_are_exact_and_drawn_at_random(self):
        train = split(1000)
        first, again = (dealt(Sizes([7, 300, 1]), train, 3, seed) for seed in (0, 1))
        assert [len(shard) for shard in first.shards] == [7, 300, 1]
        assert rows(first.shards) != rows(again.shards)
        assert abs(first.shards[1].mean() - 499.5) < 60  # from everywhere, not from the front

    def test_may_take_all(self):
        partition = dealt(Sizes([40, 50]), split(), 2)
        assert sorted(np.concatenate(partition.shards)) == list(range(90))

    def test_refusals(self):
        for wrong in ([], [0], [3, -1], [2.5], [True]):
            with pytest.raises(InputError, match="sizes"):
                Sizes(wrong)
        with pytest.raises(InputError, match=r"sizes=\[50, 41\]: add up to 91, and there are 90"):
            dealt(Sizes([50, 41]), split(), 2)
        with pytest.raises(InputError, match=r"n_clients=3: partition\.sizes names 2 clients"):
            dealt(Sizes([1, 1]), split(), 3)
        assert Sizes([1, 1]).clients(lambda: 9) == 2


class TestFromFile:
    def written(self, folder, **changes):
        train = split()
        document = partition_document(dealt(Iid(), train, 4), ("a", "b", "c"), Multiclass())
        place = folder / "partition.json"
        place.write_text(json.dumps({**document, **changes}))
        return train, document, place

    def test_a_runs_own_document_gives_the_partition_back(self, tmp_path):
        train, document, place = self.written(tmp_path, names=["n", "e", "s", "w"])
        for path in (place, tmp_path):  # the file, or the run's folder
            partition = dealt(FromFile(str(path)), train, 4, seed=9)
            assert rows(partition.shards) == document["indices"]
            assert partition.names == ("n", "e", "s", "w")
            again = partition_document(partition, ("a", "b", "c"), Multiclass())
            assert again["hash"] == document["hash"]
        assert FromFile(str(place)).clients(lambda: 0) == 4

    def test_a_list_and_arrays_will_do(self, tmp_path):
        held = [[5, 2], [0], [7, 8, 1]]
        (tmp_path / "list.json").write_text(json.dumps(held))
        np.savez(tmp_path / "named.npz", **{f"c{k}": np.array(r) for k, r in enumerate(held)})
        np.savez(tmp_path / "plain.npz", *map(np.array, held))
        for name in ("list.json", "named.npz", "plain.npz"):
            partition = dealt(FromFile(str(tmp_path / name)), split(), 3)
            assert rows(partition.shards) == [[2, 5], [0], [1, 7, 8]]
            assert partition.names == (("c0", "c1", "c2") if name == "named.npz" else ())

    def test_clients_of_one_site_each_have_its_patients(self, tmp_path):
        train = split(4, site=torch.tensor([1, 0, 0, 1]))
        (tmp_path / "a.json").write_text("[[0, 3], [1], [2]]")
        own = dealt(FromFile(str(tmp_path / "a.json")), train, 3).own(train, "test")
        assert rows(own.rows) == [[0, 3], [1, 2], [1, 2]]
        (tmp_path / "b.json").write_text("[[0, 1], [2]]")
        assert dealt(FromFile(str(tmp_path / "b.json")), train, 2).own is None

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"hash": "0" * 64}, "was changed since it was written: its hash is 0000"),
            ({"names": ["n", "e"]}, "must name each of its 4 clients, or none"),
            ({"names": [1, 2, 3, 4]}, "must name each of its 4 clients, or none"),
            ({"names": 4}, "must name each of its 4 clients"),
            ({"counts": 4}, "must hold counts of each class"),
            ({"counts": [[1, 1, 1]] * 4}, r"examples of client 0 have \[1, 1, 1\] .* other data"),
            ({"indices": None}, "must hold indices"),
            ({"indices": [[0], []]}, "whole row numbers, from 0, for client 1"),
            ({"indices": [[0], "1"]}, "whole row numbers, from 0, for client 1"),
            ({"indices": [[0], [1.5]]}, "whole row numbers, from 0, for client 1"),
            ({"indices": [[0], [-1]]}, "whole row numbers, from 0, for client 1"),
            ({"indices": [[0], [[1], [2, 3]]]}, "whole row numbers, from 0, for client 1"),
            ({"indices": [[0], [2**70]]}, "whole row numbers, from 0, for client 1"),
            ({"examples_changed": True}, "changed the examples"),
        ],
    )
    def test_what_is_refused(self, tmp_path, changes, reason):
        train, _, place = self.written(tmp_path, **changes)
        with pytest.raises(InputError, match=f"path={place}: .*{reason}"):
            dealt(FromFile(str(place)), train, 4)

    def test_other_data_are_found_by_their_rows(self, tmp_path):
        train, _, place = self.written(tmp_path)
        with pytest.raises(InputError, match=r"names row 89, and there are 80 training"):
            dealt(FromFile(str(place)), train.between(0, 80), 4)
        with pytest.raises(InputError, match="it is of other data"):
            dealt(FromFile(str(place)), split(seed=1), 4)
        with pytest.raises(InputError, match=r"n_clients=3: .* holds the rows of 4 clients"):
            dealt(FromFile(str(place)), train, 3)

    def test_overlaps_are_found_where_all_partitions_are_checked(self, tmp_path):
        (tmp_path / "a.json").write_text("[[0, 1], [1, 2]]")
        with pytest.raises(InputError, match="gave row 1 to clients 0 and 1"):
            dealt(FromFile(str(tmp_path / "a.json")), split(), 2)

    def test_files_that_are_none(self, tmp_path):
        (tmp_path / "a.json").write_text("{")
        (tmp_path / "a.npz").write_bytes(b"PK")
        (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
        np.savez(tmp_path / "p.npz", a=np.array([{}], dtype=object))
        for name in ("a.json", "a.npz", "b.json", "p.npz"):
            with pytest.raises(InputError, match=f"path=.*{name}: cannot be read: "):
                FromFile(str(tmp_path / name)).clients(lambda: 0)
        with pytest.raises(InputError, match="nowhere: there is no such file"):
            FromFile(str(tmp_path / "nowhere")).clients(lambda: 0)

    def test_several_labels_are_counted_too(self, tmp_path):
        y = torch.tensor([[1, 0], [1, 1], [0, 0]], dtype=torch.uint8)
        train = Split(torch.zeros(3, 4), y)
        document = {"indices": [[0, 1], [2]], "counts": [[2, 1], [0, 0]]}
        (tmp_path / "a.json").write_text(json.dumps(document))
        assert rows(dealt(FromFile(str(tmp_path / "a.json")), train, 2).shards) == [[0, 1], [2]]


class TestSimilarity:
    def test_zero_is_sorted_by_label(self):
        train = split()
        shards = dealt(Similarity(0.0), train, 9).shards
        labels = [train.y[torch.from_numpy(shard)].sort().values for shard in shards]
        assert torch.equal(torch.cat(labels), train.y.sort().values)
        assert [len(shard) for shard in shards] == [10] * 9

    def test_one_is_everybody_alike(self):
        train = split(9000)
        for shard in dealt(Similarity(1.0), train, 3).shards:
            shares = torch.bincount(train.y[torch.from_numpy(shard)]) / 3000
            assert (shares - 1 / 3).abs().max() < 0.04

    @pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 0.77])
    def test_the_sorted_share_is_byzfls(self, gamma, monkeypatch):
        """ByzFL on our order of the rows, its own shuffle of the IID share left out."""
        train, n = split(101), 7
        order = np.random.default_rng(0).permutation(101)
        shared = int(101 * gamma)
        given = [*order[:shared].tolist(), *sorted(order[shared:].tolist())]
        monkeypatch.setattr(random, "shuffle", lambda rows: None)

        class Collection:
            targets = train.y

        theirs = DataDistributor(
            {
                "data_distribution_name": "gamma_similarity_niid",
                "distribution_parameter": gamma,
                "nb_honest": n,
                "data_loader": Subset(Collection(), given),
                "batch_size": 1,
            }
        ).gamma_niid_idx(train.y, given)
        ours = dealt(Similarity(gamma), train, n).shards
        iid = set(given[:shared])
        for mine, its in zip(ours, theirs, strict=True):
            assert set(mine.tolist()) - iid == set(its.tolist()) - iid
        # The IID share goes to them in the same pieces, counted from the other end.
        pieces = [len(iid & set(its.tolist())) for its in theirs]
        assert [len(iid & set(mine.tolist())) for mine in ours] == pieces[::-1]

    @pytest.mark.parametrize("gamma", [0.0, 0.2, 0.45, 0.5, 0.9, 1.0])
    @pytest.mark.parametrize("n", [11, 12, 17])
    def test_nobody_is_left_out_and_sizes_differ_by_one(self, gamma, n):
        sizes = [len(shard) for shard in dealt(Similarity(gamma), split(n), 11).shards]
        assert sum(sizes) == n
        assert max(sizes) - min(sizes) <= 1

    def test_refusals(self):
        for wrong in (-0.1, 1.1, float("nan")):
            with pytest.raises(InputError, match="gamma="):
                Similarity(wrong)
        several = Split(torch.zeros(3, 4), torch.zeros(3, 2, dtype=torch.uint8))
        with pytest.raises(InputError, match="needs one class an example"):
            dealt(Similarity(0.5), several, 2)


def test_a_partition_that_changed_the_examples_says_so_in_its_document():
    train = split()
    changed = Partition(train.with_x(train.x + 1), (np.arange(90),))
    document = partition_document(checked(changed, train, 1, "it"), ("a", "b", "c"), Multiclass())
    assert document["examples_changed"] is True
