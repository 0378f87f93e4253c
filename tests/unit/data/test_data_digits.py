import dataclasses
from pathlib import Path

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.data.digits import Digits
from fedexp.data.loader import load
from fedexp.data.status import Status, check, get

DIGITS = Digits("digits", (1, 8, 8), 10, validation_size=180, test_size=360, split_seed=0)
NOWHERE = Path("there-is-no-such-folder")


def rows(part: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in part.x}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return DIGITS(NOWHERE)


def test_sizes_types_and_range(digits: Dataset) -> None:
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [
        1257,
        180,
        360,
    ]
    assert digits.input_shape == (1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    assert digits.train.x.dtype == torch.uint8
    assert digits.train.y.dtype == torch.int64
    pixels = digits.train.as_floats().x
    assert pixels.dtype == torch.float32
    assert pixels.min() == 0
    assert pixels.max() == 1


def test_class_counts_are_the_published_ones_and_each_part_has_its_share(digits: Dataset) -> None:
    parts = (digits.train, digits.validation, digits.test)
    counts = [torch.bincount(part.y, minlength=10) for part in parts]
    published = torch.tensor([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert torch.equal(sum(counts), published)
    for part, count in zip(parts, counts, strict=True):
        assert (count - published * len(part) / 1797).abs().max() <= 1


def test_parts_are_disjoint_and_together_all_images(digits: Dataset) -> None:
    # No two of the 1797 images are equal, so the bytes of an image name it.
    parts = [rows(part) for part in (digits.train, digits.validation, digits.test)]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 1797


def test_same_split_seed_same_parts_other_seed_other_parts(digits: Dataset) -> None:
    again = DIGITS(NOWHERE)
    other = dataclasses.replace(DIGITS, split_seed=1)(NOWHERE)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(digits, part).x, getattr(again, part).x)
        assert torch.equal(getattr(digits, part).y, getattr(again, part).y)
        assert rows(getattr(digits, part)) != rows(getattr(other, part))


def test_labels_belong_to_their_images(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    truth = {
        (image / 16).astype("float32").tobytes(): label
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for part in (digits.train, digits.validation, digits.test):
        images = part.as_floats().x
        assert [truth[image.numpy().tobytes()] for image in images] == part.y.tolist()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"input_shape": (1, 28, 28)}, "input_shape"),
        ({"num_classes": 9}, "num_classes"),
        ({"validation_size": 9}, "validation_size"),
        ({"validation_size": 1437}, "validation_size"),
        ({"test_size": 1797}, "test_size"),
    ],
)
def test_refuses_what_the_images_cannot_give(change: dict, key: str) -> None:
    with pytest.raises(InputError) as caught:
        dataclasses.replace(DIGITS, **change)(NOWHERE)
    assert caught.value.key == key
    # A wrong config is not a wrong file.
    with pytest.raises(InputError, match=key):
        check(dataclasses.replace(DIGITS, **change), NOWHERE)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"input_shape": [8, 8]}, "input_shape"),
        ({"input_shape": [1, 8, 0]}, "input_shape"),
        ({"input_shape": 8}, "input_shape"),
        ({"validation_size": -1}, "validation_size"),
        ({"test_size": -1}, "test_size"),
        ({"split_seed": -1}, "split_seed"),
        ({"split_seed": 2**32}, "split_seed"),
    ],
)
def test_refuses_senseless_arguments_at_once(change: dict, key: str) -> None:
    with pytest.raises(InputError) as caught:
        dataclasses.replace(DIGITS, **change)
    assert caught.value.key == key


def test_equal_loaders_share_one_dataset_and_others_do_not() -> None:
    from_list = dataclasses.replace(DIGITS, input_shape=[1, 8, 8])
    assert load(DIGITS, NOWHERE) is load(from_list, NOWHERE)
    assert load(dataclasses.replace(DIGITS, split_seed=1), NOWHERE) is not load(DIGITS, NOWHERE)


def test_always_there() -> None:
    ok = Status("ok", "1257 train, 180 validation, 360 test examples")
    assert DIGITS.files(NOWHERE) == ()
    assert check(DIGITS, NOWHERE) == ok
    assert get(DIGITS, NOWHERE, progress=False) == ok
