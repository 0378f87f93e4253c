"""A collection that somebody else wrote is refused in one line where it cannot be used."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.data import loader as loading
from fedexp.data.check import checked
from fedexp.data.loader import load, load_anew
from fedexp.data.status import check
from tests.support.own_data import NOWHERE, Given, Table


def split(n=6, **changes):
    rows = Split(torch.rand(n, 2, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 2)
    return replace(rows, **changes)


def images(n=6, **changes):
    x = torch.arange(n * 4, dtype=torch.uint8).view(n, 1, 2, 2)
    return replace(Split(x, torch.arange(n) % 2, divisor=255), **changes)


def dataset(**parts):
    whole = {"train": split(), "validation": split(4), "test": split(5)} | parts
    return Dataset("mine", class_names=("no", "yes"), **whole)


def several(n=6, **changes):
    y = torch.zeros(n, 2, dtype=torch.uint8)
    return split(n, y=y, **changes)


def test_what_can_be_used_is_handed_on():
    for usable in (
        dataset(),
        dataset(train=several(), validation=several(4), test=several(5)),
        dataset(train=images(), validation=images(4), test=images(5)),
        dataset(train=split(site=torch.arange(6), subject=torch.arange(6))),
    ):
        assert checked(usable, "mine", None, 2) is usable


NAN = torch.full((6, 2), torch.nan)
FAULTS = {
    "no dataset": ([1, 2], "its loader must return a Dataset, and returned a list"),
    "a label too many": (
        dataset(test=split(5, y=torch.arange(5))),
        "the test part has labels 0 to 4, and there are 2 classes, from 0",
    ),
    "a negative label": (
        dataset(train=split(y=torch.arange(6) - 1)),
        "the train part has labels -1 to 4, and there are 2 classes",
    ),
    "fewer labels": (dataset(train=split(y=torch.zeros(5).long())), "has 6 examples and 5 labels"),
    "labels that are no whole numbers": (
        dataset(train=split(y=torch.zeros(6))),
        "must have labels [n] int64 or [n, labels] uint8, and has [6] float32",
    ),
    "labels of another number": (
        dataset(train=split(y=torch.zeros(6, 3, dtype=torch.uint8))),
        "must have labels [6, 2], and has [6, 3]",
    ),
    "labels beside 0 and 1": (
        dataset(train=split(y=torch.full((6, 2), 2, dtype=torch.uint8))),
        "has labels up to 2, not 0 or 1",
    ),
    "one class here, several labels there": (
        dataset(test=several(5)),
        "train and test do not have the same kind of labels",
    ),
    "what is no number": (dataset(validation=split(x=NAN)), "the validation part holds values"),
    "float64": (dataset(train=split(x=torch.zeros(6, 2).double())), "holds [6, 2] float64"),
    "no axis": (dataset(train=split(x=torch.zeros(6))), "must hold [n, ...]"),
    "nothing": (dataset(validation=split(0)), "the validation part is empty"),
    "other shapes": (
        dataset(test=split(5, x=torch.zeros(5, 3))),
        "the examples of train are [2], of test [3]",
    ),
    "floats with a divisor": (dataset(train=split(divisor=255.0)), "float32 with divisor 255"),
    "no divisor": (dataset(train=split(divisor=0.0)), "has divisor 0.0"),
    "bright pixels": (
        dataset(train=images(divisor=16), validation=images(4), test=images(5)),
        "must hold pixels in [0, 1], and holds 0 to 23 over 16",
    ),
    "fewer sites": (
        dataset(train=split(site=torch.arange(5))),
        "must name a site for each of 6 examples",
    ),
    "subjects of another kind": (
        dataset(train=split(subject=torch.zeros(6))),
        "must name a subject for each of 6 examples, [n] int64",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_refused(fault):
    wrong, message = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        checked(wrong, "mine", None, None)
    assert str(caught.value).startswith("name=mine: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_was_declared_is_what_is_there():
    with pytest.raises(InputError, match=r"input_shape=\[3\]: the examples of mine are \[2\]"):
        load_anew(Given("mine", dataset(), input_shape=(3,)), NOWHERE)
    with pytest.raises(InputError, match="num_classes=5: mine has 2 classes"):
        load_anew(Given("mine", dataset(), num_classes=5), NOWHERE)
    with pytest.raises(InputError, match="num_classes=5"):
        load(Given("mine", dataset(), num_classes=5), NOWHERE)
    assert load(Given("mine", dataset()), NOWHERE).num_classes == 2


def test_an_ordinary_dataclass_is_loaded_once_and_again_when_it_was_changed():
    table = Table("table", [30], 2)
    with pytest.raises(TypeError):
        hash(table)
    first = load(table, NOWHERE)
    assert load(Table("table", [30], 2), NOWHERE) is first
    table.remarks.append("changed")
    assert load(table, NOWHERE) is not first
    assert load(table, NOWHERE / "else") is not first


def test_two_are_kept(monkeypatch):
    monkeypatch.setattr(loading, "_kept", loading.OrderedDict())
    loaders = [Table(name, [30], 2) for name in "abc"]
    first = [load(each, NOWHERE) for each in loaders]
    assert load(loaders[2], NOWHERE) is first[2]
    assert load(loaders[1], NOWHERE) is first[1]
    assert load(loaders[0], NOWHERE) is not first[0]


def test_what_cannot_be_told_apart_is_not_kept():
    class Local:
        name = "local"

        def __call__(self, data_dir):
            return dataset()

    local = Local()
    assert load(local, NOWHERE) is not load(local, NOWHERE)


def test_data_check_says_how_many_examples_an_own_collection_has():
    assert check(Table("table", [30], 2), NOWHERE).detail.startswith("369 train, 100 validation")


def test_a_read_only_array_becomes_a_tensor_that_can_be_written():
    from fedexp.data.assemble import image_split

    x = np.frombuffer(bytes(16), np.uint8).reshape(4, 1, 2, 2)
    part = image_split(x, np.zeros(4, np.int64), 1, "file", "toy", divisor=255)
    part.x.fill_(1)
    assert x.max() == 0
