import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.data.assemble import assemble, image_split, stratified


def arrays(n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.full((n, 1, 2, 2), 0.5, np.float32), np.arange(n) % 2


def split(n: int = 4) -> Split:
    return image_split(*arrays(n), num_classes=2, source="file", dataset="toy")


def refused(x: np.ndarray, y: np.ndarray) -> str:
    with pytest.raises(InputError) as caught:
        image_split(x, y, num_classes=2, source="a/file", dataset="toy")
    message = str(caught.value)
    assert message.startswith("a/file is damaged: expected ")
    assert message.endswith("delete it and run `fedexp data get toy`")
    assert "\n" not in message
    return message


def test_keeps_what_it_is_given() -> None:
    x, y = arrays()
    part = split()
    assert torch.equal(part.x, torch.from_numpy(x))
    assert part.y.tolist() == y.tolist() == [0, 1, 0, 1]
    assert part.y.dtype == torch.int64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 1.01])
def test_refuses_a_pixel_outside_the_range(bad: float) -> None:
    x, y = arrays()
    x[2, 0, 1, 1] = bad
    assert "expected pixels in [0, 1]" in refused(x, y)


@pytest.mark.parametrize("bad", [-1, 2])
def test_refuses_a_label_without_a_class(bad: int) -> None:
    x, y = arrays()
    y[3] = bad
    assert f"{bad}" in refused(x, y)


def test_refuses_labels_that_are_no_whole_numbers() -> None:
    x, y = arrays()
    assert "whole labels" in refused(x, y / 2)


def test_refuses_shapes_that_do_not_agree() -> None:
    x, y = arrays()
    refused(x, y[:3])
    refused(x, y[:, None])
    refused(x[:, 0], y)


def test_refuses_nothing() -> None:
    x, y = arrays()
    assert "found none" in refused(x[:0], y[:0])


def test_assembles_parts_that_agree_and_names_the_key_if_not() -> None:
    names = ("cat", "dog")
    dataset = assemble("toy", split(8), split(4), split(2), names, (1, 2, 2), 2)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (8, 4, 2)
    assert dataset.num_classes == 2

    with pytest.raises(InputError, match=r"input_shape=\[1, 3, 3\]: the images of toy are"):
        assemble("toy", split(), split(), split(), names, (1, 3, 3), 2)
    wide = Split(torch.zeros(4, 1, 2, 3), split().y)
    with pytest.raises(InputError, match=r"toy are \[1, 2, 3\]"):
        assemble("toy", split(), split(), wide, names, (1, 2, 2), 2)
    with pytest.raises(InputError, match="num_classes=3: toy has 2 classes"):
        assemble("toy", split(), split(), split(), names, (1, 2, 2), 3)


def test_stratified_keeps_the_proportions_and_the_order() -> None:
    y = torch.tensor([0] * 80 + [1] * 20)
    whole = Split(torch.arange(100.0).view(100, 1, 1, 1), y)
    rest, part = stratified(whole, 10, split_seed=0)
    assert torch.bincount(part.y).tolist() == [8, 2]
    assert torch.bincount(rest.y).tolist() == [72, 18]
    order = [part.x.flatten(), rest.x.flatten()]
    assert all((numbers.diff() > 0).all() for numbers in order)
    assert sorted(torch.cat(order).tolist()) == list(range(100))


def test_stratified_refuses_a_class_of_one() -> None:
    whole = Split(torch.zeros(10, 1, 1, 1), torch.tensor([0] * 9 + [1]))
    with pytest.raises(InputError, match="validation_size=4: cannot be split by class"):
        stratified(whole, 4, split_seed=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("counts", [(50, 50), (7, 2, 31), (178, 182, 177, 183, 181), (4, 4, 4, 4)])
@pytest.mark.parametrize("size", [5, 7])
def test_the_parts_are_those_that_scikit_learn_draws(counts, size, seed):
    from sklearn.model_selection import train_test_split

    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rest, part = train_test_split(np.arange(len(y)), test_size=size, random_state=seed, stratify=y)
    whole = Split(torch.arange(len(y)).float()[:, None], torch.from_numpy(y))
    found = stratified(whole, size, seed)
    assert [split.x.flatten().tolist() for split in found] == [sorted(rest), sorted(part)]
