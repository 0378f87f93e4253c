"""CIFAR, SVHN and EMNIST on small files of the published format, against torchvision's readers."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.data import emnist
from fedexp.data.cifar import CIFAR
from fedexp.data.emnist import EMNIST
from fedexp.data.status import check
from fedexp.data.svhn import SVHN
from tests.support.composing import part

NOBODY = "http://127.0.0.1:1/nobody-listens"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def same_examples(whole: list[tuple[np.ndarray, int]], *parts: Split) -> None:
    """The parts together hold these images `[H, W, C]` and labels, each once."""
    ours = [
        (image.permute(1, 2, 0).numpy().tobytes(), int(label))
        for split in parts
        for image, label in zip(split.x, split.y, strict=True)
    ]
    theirs = [(np.asarray(image).tobytes(), int(label)) for image, label in whole]
    assert sorted(ours) == sorted(theirs)


# CIFAR


def cifar_files(collection: str, classes: int, n: int) -> dict[str, bytes]:
    """The files of the python version, with n images in each of them."""
    about = getattr(datasets, collection)
    key = "labels" if collection == "CIFAR10" else "fine_labels"
    files = {}
    for name, _ in (*about.train_list, *about.test_list):
        data = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
        document = {"data": data, key: [i % classes for i in range(n)], "batch_label": name}
        files[name] = pickle.dumps(document, protocol=2)
    names = [f"thing {i}" for i in range(classes)]
    files[about.meta["filename"]] = pickle.dumps({about.meta["key"]: names}, protocol=2)
    return files


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def cifar(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[CIFAR, Any]:
    """A loader, and torchvision's class, which believe in files of their own in `tmp_path`."""
    classes = 10 if request.param == "CIFAR10" else 100
    about = getattr(datasets, request.param)
    files = cifar_files(request.param, classes, 4 if classes == 10 else 400)
    place_archive(tmp_path, about, files, monkeypatch)
    present = 4 if classes == 10 else classes  # 5 files of 4 images, or 1 of 400
    return CIFAR(request.param.lower(), request.param, (3, 32, 32), classes, present, 0), about


def place_archive(
    folder: Path, about: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{about.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / about.filename).write_bytes(buffer.getvalue())
    monkeypatch.setattr(about, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(about, "url", NOBODY)
    for name in ("train_list", "test_list"):
        sums = [[file, md5(files[file])] for file, _ in getattr(about, name)]
        monkeypatch.setattr(about, name, sums)
    meta = about.meta["filename"]
    monkeypatch.setattr(about, "meta", {**about.meta, "md5": md5(files[meta])})


def test_cifar_is_what_torchvision_reads(cifar: tuple[CIFAR, Any], tmp_path: Path) -> None:
    loader, about = cifar
    dataset = loader(tmp_path)
    assert dataset.class_names[:2] == ("thing 0", "thing 1")
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.train.x.dtype == torch.uint8
    assert len(dataset.validation) == loader.validation_size
    with tarfile.open(tmp_path / about.filename) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # which 3.11.2 has not
        tar.extractall(tmp_path)
    theirs = [about(tmp_path, train=train) for train in (True, False)]
    same_examples(
        list(zip(theirs[0].data, theirs[0].targets, strict=True)), dataset.train, dataset.validation
    )
    same_examples(list(zip(theirs[1].data, theirs[1].targets, strict=True)), dataset.test)
    (tmp_path / about.filename).unlink()
    assert loader.files(tmp_path) == ()  # unpacked, as torchvision leaves it
    assert torch.equal(loader(tmp_path).train.x, dataset.train.x)


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    files = cifar_files("CIFAR10", 10, 4) | {"data_batch_1": pickle.dumps(Trap())}
    place_archive(tmp_path, datasets.CIFAR10, files, monkeypatch)
    loader = CIFAR("cifar10", "CIFAR10", (3, 32, 32), 10, 10, 0)
    with pytest.raises(InputError, match=r"only arrays are read.*fedexp data get cifar10"):
        loader(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_cifar_files_of_the_wrong_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, files = part("dataset", "cifar10"), cifar_files("CIFAR10", 10, 4)
    about = datasets.CIFAR10
    short = pickle.dumps({"data": np.zeros((4, 3071), np.uint8), "labels": [0] * 4}, protocol=2)
    for broken, said in (
        ({"data_batch_2": short}, "expected data"),
        ({"data_batch_2": pickle.dumps([1], protocol=2)}, "expected a mapping, found a list"),
        ({"data_batch_2": b"not a pickle"}, "expected a pickle of arrays"),
    ):
        place_archive(tmp_path, about, files | broken, monkeypatch)
        status = check(loader, tmp_path)
        assert status.state == "corrupt"
        assert said in status.detail
        assert "\n" not in status.detail
    place_archive(tmp_path, about, files, monkeypatch)
    monkeypatch.setattr(about, "train_list", [["data_batch_9", "0"], *about.train_list[1:]])
    with pytest.raises(InputError, match="expected data_batch_9 in it"):
        loader(tmp_path)
    (tmp_path / about.filename).write_bytes(b"<html></html>")
    assert "expected MD5" in check(loader, tmp_path).detail
    (tmp_path / about.filename).unlink()
    assert check(loader, tmp_path).state == "missing"
    with pytest.raises(InputError, match=r"could not be downloaded.*with MD5"):
        loader(tmp_path)


# SVHN


def place_svhn(folder: Path, monkeypatch: pytest.MonkeyPatch, **replaced: np.ndarray) -> None:
    (folder / "SVHN").mkdir(exist_ok=True)
    sums = {}
    for name, n in (("train", 40), ("test", 20)):
        x = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        y = (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]
        buffer = io.BytesIO()
        savemat(buffer, {"X": x, "y": y, **replaced})
        (folder / "SVHN" / f"{name}_32x32.mat").write_bytes(buffer.getvalue())
        sums[name] = [NOBODY, f"{name}_32x32.mat", md5(buffer.getvalue())]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)


def test_svhn_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_svhn(tmp_path, monkeypatch)
    dataset = SVHN("svhn", (3, 32, 32), 10, 10, 0)(tmp_path)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.train.y.unique().tolist() == list(range(10))
    for name, parts in (("train", (dataset.train, dataset.validation)), ("test", (dataset.test,))):
        theirs = datasets.SVHN(tmp_path / "SVHN", split=name)
        images = theirs.data.transpose(0, 2, 3, 1)
        same_examples(list(zip(images, theirs.labels, strict=True)), *parts)


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"X": np.zeros((4, 4), np.uint8)}, "expected images and labels"),
        ({"X": np.zeros((32, 32, 3, 5), np.float64)}, "found float64"),
        ({"y": np.full((40, 1), 11, np.uint8)}, "expected whole labels 0 to 9"),
    ],
)
def test_svhn_of_the_wrong_kind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced: dict[str, np.ndarray],
    said: str,
) -> None:
    place_svhn(tmp_path, monkeypatch, **replaced)
    status = check(SVHN("svhn", (3, 32, 32), 10, 10, 0), tmp_path)
    assert status.state == "corrupt"
    assert said in status.detail


# EMNIST


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def place_emnist(
    folder: Path, monkeypatch: pytest.MonkeyPatch, split: str, labels: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A zip archive with one split, every label twice in training; what is in it by part."""
    (folder / "EMNIST" / "raw").mkdir(parents=True, exist_ok=True)
    held, buffer = {}, io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, y in (("train", np.tile(labels, 2)), ("test", labels)):
            x = RNG.integers(0, 256, (len(y), 28, 28), dtype=np.uint8)
            held[name] = x, y
            for kind, array in (("images-idx3", x), ("labels-idx1", y)):
                content = gzip.compress(idx(array))
                archive.writestr(f"gzip/emnist-{split}-{name}-{kind}-ubyte.gz", content)
    (folder / "EMNIST" / "raw" / "gzip.zip").write_bytes(buffer.getvalue())
    monkeypatch.setattr(datasets.EMNIST, "md5", md5(buffer.getvalue()))
    monkeypatch.setattr(datasets.EMNIST, "url", NOBODY)
    return held


SPLITS = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


@pytest.mark.parametrize("split", SPLITS)
def test_emnist_stands_upright_and_counts_from_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    classes, first = SPLITS[split], int(split == "letters")
    labels = np.arange(classes, dtype=np.uint8) + first
    held = place_emnist(tmp_path, monkeypatch, split, labels)
    size = f"dataset.validation_size={classes}"
    loader = part("dataset", "emnist", f"dataset.split={split}", size)
    assert loader.num_classes == classes
    dataset = loader(tmp_path)
    assert len(dataset.class_names) == classes
    assert (dataset.class_names[0], dataset.site_names) == ("a" if first else "0", ())
    x, y = held["test"]
    assert np.array_equal(dataset.test.x[:, 0].numpy(), x.transpose(0, 2, 1))
    assert np.array_equal(dataset.test.y.numpy(), y - first)
    x, y = held["train"]
    upright = x.transpose(0, 2, 1)[..., None]
    same_examples(list(zip(upright, y - first, strict=True)), dataset.train, dataset.validation)


def test_emnist_letters_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_emnist(tmp_path, monkeypatch, "letters", np.arange(1, 27, dtype=np.uint8))
    dataset = EMNIST("emnist", "letters", False, (1, 28, 28), 26, 26, 0)(tmp_path)
    with zipfile.ZipFile(tmp_path / "EMNIST" / "raw" / "gzip.zip") as archive:
        for name in archive.namelist():
            unpacked = tmp_path / "EMNIST" / "raw" / Path(name).with_suffix("").name
            unpacked.write_bytes(gzip.decompress(archive.read(name)))
    theirs = datasets.EMNIST(tmp_path, split="letters", train=False)
    assert torch.equal(dataset.test.x[:, 0], theirs.data.transpose(1, 2))
    names = [theirs.classes[label] for label in theirs.targets]
    assert [dataset.class_names[label] for label in dataset.test.y] == names


def place_writers(folder: Path, split: str, **replaced: Any) -> dict[str, dict[str, np.ndarray]]:
    (folder / "EMNIST" / "matlab").mkdir(parents=True)
    parts = {}
    for name, n in (("train", 40), ("test", 20)):
        parts[name] = {
            "images": RNG.integers(0, 256, (n, 784), dtype=np.uint8),
            "labels": (np.arange(n, dtype=np.uint8) % 10)[:, None],
            "writers": (np.arange(n, dtype=np.uint16) // 10 * 7 + 3)[:, None],
        }
    whole = {**parts, **replaced}
    savemat(folder / "EMNIST" / "matlab" / f"emnist-{split}.mat", {"dataset": whole})
    return parts


def test_writers_are_sites(tmp_path: Path) -> None:
    held = place_writers(tmp_path, "digits")
    loader = EMNIST("emnist", "digits", True, (1, 28, 28), 10, 10, 0)
    dataset = loader(tmp_path)
    assert loader.files(tmp_path) == ()
    assert dataset.site_names == ("writer 3", "writer 10", "writer 17", "writer 24")
    assert dataset.test.site is not None
    named = [dataset.site_names[site] for site in dataset.test.site]
    assert named == [f"writer {w}" for w in held["test"]["writers"][:, 0]]
    upright = held["test"]["images"].reshape(-1, 28, 28).transpose(0, 2, 1)
    assert np.array_equal(dataset.test.x[:, 0].numpy(), upright)
    # Every example keeps its writer where validation is taken from training.
    wrote = {
        image.reshape(28, 28).T.tobytes(): f"writer {w}"
        for image, w in zip(held["train"]["images"], held["train"]["writers"][:, 0], strict=True)
    }
    for split in (dataset.train, dataset.validation):
        for image, site in zip(split.x, split.site, strict=True):
            assert wrote[image.numpy().tobytes()] == dataset.site_names[site]


def test_a_file_of_writers_that_is_missing_or_of_another_kind(tmp_path: Path) -> None:
    loader = EMNIST("emnist", "digits", True, (1, 28, 28), 10, 10, 0)
    with pytest.raises(InputError, match=r"emnist-digits.mat is missing.*matlab.zip"):
        loader(tmp_path)
    place_writers(tmp_path, "digits", train={"images": np.zeros((4, 784), np.uint8)})
    with pytest.raises(InputError, match=r"is damaged: expected a MATLAB file with dataset.train"):
        loader(tmp_path)
    (tmp_path / "EMNIST" / "matlab" / "emnist-digits.mat").write_bytes(b"no MATLAB here" * 50)
    with pytest.raises(InputError, match="is damaged: expected a MATLAB file"):
        loader(tmp_path)


def test_emnist_of_the_wrong_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_emnist(tmp_path, monkeypatch, "letters", np.arange(27, dtype=np.uint8))
    letters = EMNIST("emnist", "letters", False, (1, 28, 28), 26, 26, 0)
    with pytest.raises(InputError, match="expected whole labels 0 to 25, found -1 to 25"):
        letters(tmp_path)
    digits = EMNIST("emnist", "digits", False, (1, 28, 28), 10, 10, 0)
    with pytest.raises(InputError, match="expected gzip/emnist-digits-train"):
        digits(tmp_path)
    with pytest.raises(InputError, match="split=lettres: did you mean letters"):
        EMNIST("emnist", "lettres", False, (1, 28, 28), 26, 26, 0)


def test_the_cuts_of_emnist_are_torchvisions():
    assert set(emnist.SPLITS) == set(datasets.EMNIST.splits)
