import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.data.medmnist import MedMNIST, published
from fedexp.data.status import check, get
from tests.support import composing

GREY = MedMNIST("breastmnist", (1, 3, 2), 2)
COLOUR = MedMNIST("retinamnist", (3, 3, 2), 5)
SIZES = {"train": 10, "val": 6, "test": 5}
Place = Callable[[str, bytes], Path]


def toy(num_classes: int, channels: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in SIZES.items():
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 3, 2, *channels), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n, dtype=np.uint8) % num_classes)[:, None]
    return arrays


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Puts a file where a collection's belongs, and makes the package believe in its MD5."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def put(name: str, content: bytes) -> Path:
        path = tmp_path / "medmnist" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        monkeypatch.setitem(published()[name], "MD5", hashlib.md5(content).hexdigest())
        monkeypatch.setitem(published()[name], "url", "http://127.0.0.1:1/nobody-listens")
        return path

    return put


def corrupt(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        GREY(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("delete it and run `fedexp data get breastmnist`")
    status = check(GREY, folder)
    assert (status.state, status.detail) == ("corrupt", message)
    return message


def test_grey_images(place: Place, tmp_path: Path) -> None:
    arrays = toy(2, ())
    place("breastmnist", npz(arrays))
    dataset = GREY(tmp_path)
    for part, official in (("train", "train"), ("validation", "val"), ("test", "test")):
        split = getattr(dataset, part)
        expected = arrays[f"{official}_images"].astype(np.float32) / np.float32(255)
        assert torch.equal(split.as_floats().x, torch.from_numpy(expected)[:, None])
        assert split.y.tolist() == arrays[f"{official}_labels"][:, 0].tolist()
    assert dataset.class_names == ("malignant", "normal, benign")
    assert check(GREY, tmp_path).detail == "10 train, 6 validation, 5 test examples"


def test_colour_channels_come_first(place: Place, tmp_path: Path) -> None:
    arrays = toy(5, (3,))
    place("retinamnist", npz(arrays))
    dataset = COLOUR(tmp_path)
    assert dataset.train.x.is_contiguous()
    assert dataset.input_shape == (3, 3, 2)
    for image, channel, row, column in [(0, 0, 0, 0), (3, 1, 2, 0), (9, 2, 1, 1)]:
        byte = int(arrays["train_images"][image, row, column, channel])
        assert dataset.train.as_floats().x[image, channel, row, column].item() == np.float32(
            byte / 255
        )


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_file_cut_short(place: Place, tmp_path: Path, cut: int) -> None:
    path = place("breastmnist", npz(toy(2, ())))
    path.write_bytes(path.read_bytes()[:cut])
    assert "expected MD5" in corrupt(tmp_path)
    assert get(GREY, tmp_path, progress=False).state == "corrupt"


def test_a_web_page_under_the_name(place: Place, tmp_path: Path) -> None:
    path = place("breastmnist", npz(toy(2, ())))
    path.write_text("<!DOCTYPE html><html>Too many requests</html>")
    message = corrupt(tmp_path)
    assert message.startswith(f"{path} is damaged: expected MD5")
    assert "in 45 bytes" in message


@pytest.mark.parametrize("content", [b"", b"<html></html>", npz(toy(2, ()))[:200]])
def test_no_npz_even_with_the_right_md5(place: Place, tmp_path: Path, content: bytes) -> None:
    place("breastmnist", content)
    assert "expected the plain arrays" in corrupt(tmp_path)


def test_pickled_objects_are_refused_and_not_run(place: Place, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    arrays = toy(2, ())
    arrays["test_images"] = np.array([Trap()] * SIZES["test"], dtype=object)
    place("breastmnist", npz(arrays))
    assert "allow_pickle" in corrupt(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_an_array_too_few(place: Place, tmp_path: Path) -> None:
    arrays = toy(2, ())
    del arrays["val_labels"]
    place("breastmnist", npz(arrays))
    assert "val_labels is not a file in the archive" in corrupt(tmp_path)


def test_labels_that_do_not_fit(place: Place, tmp_path: Path) -> None:
    arrays = toy(2, ())
    place("breastmnist", npz(arrays | {"val_labels": arrays["val_labels"] + 1}))
    assert "expected whole labels 0 to 1, found 1 to 2" in corrupt(tmp_path)
    place("breastmnist", npz(arrays | {"val_labels": np.zeros((6, 14), np.uint8)}))
    assert "labels (6, 14)" in corrupt(tmp_path)


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published()["breastmnist"], "url", "http://127.0.0.1:1/nobody-listens")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = tmp_path / "medmnist" / "breastmnist.npz"
    assert (check(GREY, tmp_path).state, check(GREY, tmp_path).detail) == ("missing", str(path))
    for text in (str(path), "127.0.0.1:1", published()["breastmnist"]["MD5"]):
        with pytest.raises(InputError, match=text):
            GREY(tmp_path)


def test_what_is_no_collection_or_no_size_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="name=organmnist3d: "):
        MedMNIST("organmnist3d", (1, 28, 28), 11)
    with pytest.raises(InputError, match="did you mean bloodmnist"):
        MedMNIST("bloodmist", (3, 28, 28), 8)
    with pytest.raises(InputError, match=r"size=32: .*28, 64, 128, 224"):
        MedMNIST("bloodmnist", (3, 32, 32), 8, size=32)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_a_larger_size_is_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    rng, arrays = np.random.default_rng(0), {}
    for name in SIZES:
        arrays[f"{name}_images"] = rng.integers(0, 256, (2, size, size), dtype=np.uint8)
        arrays[f"{name}_labels"] = np.array([[0], [1]], dtype=np.uint8)
    content = npz(arrays)
    monkeypatch.setitem(published()["breastmnist"], f"MD5_{size}", hashlib.md5(content).hexdigest())
    (tmp_path / "medmnist").mkdir()
    path = tmp_path / "medmnist" / f"breastmnist_{size}.npz"
    path.write_bytes(content)
    loader = composing.part("dataset", "breastmnist", f"dataset.size={size}")
    (file,) = loader.files(tmp_path)
    assert (file.path, file.urls) == (path, (published()["breastmnist"][f"url_{size}"],))
    dataset = loader(tmp_path)
    assert dataset.input_shape == (1, size, size)
    assert dataset.train.x.dtype == torch.uint8
    assert torch.equal(dataset.test.x[:, 0], torch.from_numpy(arrays["test_images"]))
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"fedexp data get breastmnist dataset.size={size}`"):
        loader(tmp_path)


def test_an_image_of_chestmnist_has_any_number_of_labels(place: Place, tmp_path: Path) -> None:
    arrays = toy(2, ())
    for name, n in SIZES.items():
        marks = np.random.default_rng(n).integers(0, 2, (n, 14), dtype=np.uint8)
        arrays[f"{name}_labels"] = marks
    place("chestmnist", npz(arrays))
    dataset = MedMNIST("chestmnist", (1, 3, 2), 14)(tmp_path)
    assert dataset.class_names[:2] == ("atelectasis", "cardiomegaly")
    assert dataset.train.y.dtype == torch.uint8
    assert dataset.train.y.tolist() == arrays["train_labels"].tolist()
    with pytest.raises(InputError, match="use task=multilabel"):
        composing.part("task", "multiclass").check(dataset.train.y, dataset.num_classes)
    composing.part("task", "multilabel").check(dataset.train.y, dataset.num_classes)
    place("chestmnist", npz(arrays | {"val_labels": arrays["val_labels"] + 1}))
    with pytest.raises(InputError, match="expected labels of 0 and 1, found 1 to 2"):
        MedMNIST("chestmnist", (1, 3, 2), 14)(tmp_path)
    place("chestmnist", npz(arrays | {"val_labels": arrays["val_labels"][:, :1]}))
    with pytest.raises(InputError, match="expected 14 labels an image"):
        MedMNIST("chestmnist", (1, 3, 2), 14)(tmp_path)


def test_a_config_that_declares_something_else(place: Place, tmp_path: Path) -> None:
    place("breastmnist", npz(toy(2, ())))
    with pytest.raises(InputError, match=r"input_shape=\[3, 3, 2\]"):
        MedMNIST("breastmnist", (3, 3, 2), 2)(tmp_path)
    with pytest.raises(InputError, match="num_classes=3"):
        MedMNIST("breastmnist", (1, 3, 2), 3)(tmp_path)


REAL = {
    "pneumoniamnist": (1, [[1214, 3494], [135, 389], [234, 390]], [0.5719], [0.1684]),
    "breastmnist": (1, [[147, 399], [21, 57], [42, 114]], [0.3276], [0.2057]),
    "retinamnist": (
        3,
        [[486, 128, 206, 194, 66], [54, 12, 28, 20, 6], [174, 46, 92, 68, 20]],
        [0.3984, 0.2447, 0.1558],
        [0.2983, 0.2005, 0.1507],
    ),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_the_published_files(name: str) -> None:
    channels, counts, mean, deviation = REAL[name]
    loader = MedMNIST(name, (channels, 28, 28), len(counts[0]))
    dataset = loader(Path(os.environ["FEDEXP_DATA_DIR"]))
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [torch.bincount(part.y).tolist() for part in parts] == counts
    assert dataset.train.as_floats().x.mean(dim=(0, 2, 3)).tolist() == pytest.approx(mean, abs=6e-5)
    assert dataset.train.as_floats().x.std(dim=(0, 2, 3)).tolist() == pytest.approx(
        deviation, abs=6e-5
    )
