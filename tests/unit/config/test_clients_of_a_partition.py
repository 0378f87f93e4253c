"""How many clients there are, where the partition knows it, and runs on another run's partition."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedexp.config.build import build
from fedexp.config.clients import partitioned
from fedexp.core.checks import InputError
from fedexp.partition.document import partition_document
from tests.support.composing import config_for
from tests.support.own_data import trained

SHORT = ("rounds=2", "training.epochs=1", "training.batch_size=64", "backend=in_process")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Overrides for a table of 90 patients from three sites."""
    path, rng = tmp_path_factory.mktemp("table") / "t.csv", np.random.default_rng(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "ill", "place"])
        for k in range(90):
            ill = k % 2
            place = ("north", "south", "south", "clinic", "north", "south")[k % 6]
            writer.writerow([*rng.normal(ill, 1, 2).round(3), ill, place])
    return (
        *("dataset=table", f"dataset.path={path}", "dataset.label=ill", "dataset.site=place"),
        *("model=logistic", "rounds=2", "backend=in_process", "partition.n_clients=null"),
    )


def test_sites_are_counted_in_the_data_and_all_else_follows(table):
    config = config_for(*table, "partition=site", "attack=sign_flip", "attack.fraction=0.4")
    assert (config["n_clients"], config["cohort_size"]) == (3, 3)
    assert config["attack"]["n_malicious"] == config["assumed_malicious"] == 1
    built = build(config)
    assert built.partition.names == ("clinic", "north", "south")
    assert built.dataset.site_names == built.partition.names


def test_within_sites_there_are_several_a_site(table):
    config = config_for(*table, "partition=within_sites", "partition@partition.inner=iid")
    assert config["n_clients"] == 6
    names = build(config).partition.names
    assert names == ("clinic-1", "clinic-2", "north-1", "north-2", "south-1", "south-2")


def test_another_number_is_refused_with_the_right_one(table):
    config = config_for(*table, "partition=site")
    for key in (config, config["sampler"]):
        key["cohort_size"] = 2
    config["n_clients"] = 2
    with pytest.raises(InputError, match=r"n_clients=2: each site is a client, and there are 3"):
        build(config)


def test_data_without_sites_are_refused_before_anything_is_resolved():
    with pytest.raises(InputError, match=r"partition=Sites: .*the data do not say it"):
        config_for("partition=site", "partition.n_clients=null")


def test_sizes_and_files_are_counted(tmp_path):
    config = config_for("partition=sizes", "partition.sizes=[100,30,500]")
    assert config["n_clients"] == config["sampler"]["cohort_size"] == 3
    (tmp_path / "a.json").write_text("[[1, 2], [5], [7], [8, 9]]")
    path = f"partition.path={tmp_path / 'a.json'}"
    assert config_for("partition=file", path, "partition.n_clients=null")["n_clients"] == 4


def test_who_says_nothing_has_ten_clients_and_who_says_a_number_has_that():
    assert config_for()["n_clients"] == 10
    assert config_for("n_clients=4")["n_clients"] == 4


def test_a_partition_that_does_not_know_may_not_leave_it_open():
    with pytest.raises(InputError, match=r"partition.n_clients=null: .*does not know it"):
        config_for("+partition.n_clients=null")


def test_the_partition_of_another_run_gives_the_same_hash_and_the_same_bits(tmp_path):
    """Show 7: with equal settings nothing differs, in any metric or weight."""
    state, records, built = trained(config_for(*SHORT, "n_clients=5"))
    names = built.dataset.class_names
    document = partition_document(built.partition, names, built.task)
    (tmp_path / "partition.json").write_text(json.dumps(document))

    config = config_for(
        *("partition=file", f"partition.path={tmp_path}", "partition.n_clients=null", *SHORT),
    )
    assert config["n_clients"] == 5
    again, its_records, its = trained(config)
    assert partition_document(its.partition, names, its.task) == document
    assert torch.equal(again.params, state.params)
    assert [r.metrics for r in its_records] == [r.metrics for r in records]


def test_a_partition_that_fails_is_refused_by_name():
    class Deals:
        def __call__(self, train, n_clients, rng):
            return train.shards

    dataset, chosen = SimpleNamespace(train=[0] * 9), SimpleNamespace(partitioner=Deals())
    with pytest.raises(
        InputError, match=r"^partition=Deals: cannot deal 9 .* AttributeError: 'list"
    ):
        partitioned({"n_clients": 3, "seed": 0}, chosen, dataset)
