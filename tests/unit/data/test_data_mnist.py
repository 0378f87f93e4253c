import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset
from fedexp.data.mnist import PUBLISHED, IDXImages
from fedexp.data.status import check, get

FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
TINY = IDXImages("tiny", "MNIST", (1, 3, 2), 10, validation_size=10, split_seed=0)
rng = np.random.default_rng(0)
ARRAYS = [
    rng.integers(0, 256, (40, 3, 2), dtype=np.uint8),
    np.arange(40, dtype=np.uint8) % 10,
    rng.integers(0, 256, (20, 3, 2), dtype=np.uint8),
    np.arange(20, dtype=np.uint8) % 10,
]


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, from the format's description."""
    header = b"\x00\x00\x08" + bytes([array.ndim])
    return header + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the four tiny files as `.gz`, which are taken to be MNIST."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    digests = []
    for name, array in zip(FILES, ARRAYS, strict=True):
        content = gzip.compress(idx(array), mtime=0)
        (folder / f"{name}.gz").write_bytes(content)
        digests.append(hashlib.md5(content).hexdigest())
    # Nobody listens there: a test that downloads by mistake fails at once.
    tiny = replace(PUBLISHED["MNIST"], md5=tuple(digests), mirrors=("http://127.0.0.1:1/",))
    monkeypatch.setitem(PUBLISHED, "MNIST", tiny)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


def unpack(raw: Path, name: str) -> Path:
    """Replace a `.gz` by the uncompressed file."""
    packed = raw / f"{name}.gz"
    (raw / name).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return raw / name


def same(a: Dataset, b: Dataset) -> bool:
    parts = ("train", "validation", "test")
    return all(
        torch.equal(getattr(a, part).x, getattr(b, part).x)
        and torch.equal(getattr(a, part).y, getattr(b, part).y)
        for part in parts
    )


def corrupt(folder: Path) -> str:
    """What is said about a damaged file, the same by loading it and by checking it."""
    with pytest.raises(InputError) as caught:
        TINY(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("delete it and run `fedexp data get tiny`")
    status = check(TINY, folder)
    assert (status.state, status.detail) == ("corrupt", message)
    return message


def test_reads_pixels_labels_and_parts(raw: Path, tmp_path: Path) -> None:
    dataset = TINY(tmp_path)
    assert torch.equal(
        dataset.test.as_floats().x, torch.from_numpy(ARRAYS[2] / np.float32(255))[:, None]
    )
    assert dataset.test.y.tolist() == ARRAYS[3].tolist()
    assert dataset.input_shape == (1, 3, 2)
    assert dataset.class_names == tuple("0123456789")
    assert torch.bincount(dataset.validation.y).tolist() == [1] * 10
    assert torch.bincount(dataset.train.y).tolist() == [3] * 10

    # Each image has kept its label, and none is in both parts or lost.
    truth = {image.tobytes(): int(y) for image, y in zip(*ARRAYS[:2], strict=True)}
    found = {}
    for part in (dataset.train, dataset.validation):
        for image, y in zip(part.as_floats().x, part.y, strict=True):
            found[(image * 255).round().to(torch.uint8).numpy().tobytes()] = int(y)
    assert found == truth


def test_gz_and_uncompressed_and_mixed_give_the_same(raw: Path, tmp_path: Path) -> None:
    packed = TINY(tmp_path)
    assert len(TINY.files(tmp_path)) == 4
    unpack(raw, FILES[1])
    assert [file.path.name for file in TINY.files(tmp_path)] == [
        f"{name}.gz" for name in (FILES[0], FILES[2], FILES[3])
    ]
    assert same(TINY(tmp_path), packed)
    for name in (FILES[0], FILES[2], FILES[3]):
        unpack(raw, name)
    assert TINY.files(tmp_path) == ()
    assert same(TINY(tmp_path), packed)
    assert get(TINY, tmp_path, progress=False).state == "ok"


def test_a_read_only_folder_is_enough_and_stays_as_it_is(raw: Path, tmp_path: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in raw.iterdir())
    raw.chmod(0o555)
    try:
        assert len(TINY(tmp_path).train) == 30
    finally:
        raw.chmod(0o755)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in raw.iterdir()) == before


def test_a_missing_file(raw: Path, tmp_path: Path) -> None:
    (raw / f"{FILES[3]}.gz").unlink()
    status = check(TINY, tmp_path)
    assert (status.state, status.detail) == ("missing", str(raw / f"{FILES[3]}.gz"))
    for ask in (TINY, lambda folder: get(TINY, folder, progress=False)):
        with pytest.raises(InputError, match=f"http://127.0.0.1:1/{FILES[3]}.gz"):
            ask(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", gzip.compress(idx(ARRAYS[1]), mtime=0)[:-9]]
)
def test_a_gz_with_another_md5(raw: Path, tmp_path: Path, content: bytes) -> None:
    (raw / f"{FILES[1]}.gz").write_bytes(content)
    message = corrupt(tmp_path)
    assert message.startswith(f"{raw / FILES[1]}.gz is damaged: expected MD5 ")
    assert f"in {len(content)} bytes" in message
    assert get(TINY, tmp_path, progress=False).state == "corrupt"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "begins with 00000803"),
        (b"<html>404</html>", "found 3c68746d"),
        (idx(ARRAYS[1]), "begins with 00000803, found 00000801"),
        (b"\x00\x00\x0d\x03" + idx(ARRAYS[0])[4:], "found 00000d03"),
        (idx(ARRAYS[0])[:10], "begins with 00000803"),
        (idx(ARRAYS[0])[:-1], "expected 256 bytes, found 255"),
        (idx(ARRAYS[0]) + b"x", "expected 256 bytes, found 257"),
        (idx(ARRAYS[0][:39]), "found images (39, 1, 3, 2) and labels (40,)"),
        (idx(ARRAYS[0][:0]), "found images (0, 1, 3, 2) and labels (40,)"),
    ],
)
def test_uncompressed_images_that_are_not_whole(
    raw: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    unpack(raw, FILES[0]).write_bytes(content)
    message = corrupt(tmp_path)
    assert message.startswith(str(raw / FILES[0]))
    assert reason in message


def test_uncompressed_labels_without_a_class(raw: Path, tmp_path: Path) -> None:
    labels = ARRAYS[1].copy()
    labels[0] = 10
    unpack(raw, FILES[1]).write_bytes(idx(labels))
    assert "expected whole labels 0 to 9, found 0 to 10" in corrupt(tmp_path)


def test_refuses_another_collection() -> None:
    with pytest.raises(InputError, match="folder=EMNIST: did you mean MNIST"):
        IDXImages("emnist", "EMNIST", (1, 28, 28), 10, validation_size=10, split_seed=0)


@pytest.mark.parametrize("folder", PUBLISHED)
def test_what_is_published_is_what_torchvision_says(folder: str) -> None:
    theirs = getattr(datasets, folder)
    files = IDXImages("x", folder, (1, 28, 28), 10, 5000, 0).files(Path("data"))
    assert [(file.path.name, file.md5) for file in files] == theirs.resources
    assert all(file.path.parent == Path("data") / folder / "raw" for file in files)
    assert all(
        file.urls == tuple(mirror + file.path.name for mirror in theirs.mirrors) for file in files
    )
    # It writes "7 - seven" for MNIST; the digit is enough.
    names = tuple(name.split(" - ")[0] for name in theirs.classes)
    assert PUBLISHED[folder].classes == names


@pytest.mark.real_data
def test_mnist_itself() -> None:
    mnist = IDXImages("mnist", "MNIST", (1, 28, 28), 10, validation_size=5000, split_seed=0)
    dataset = mnist(Path(os.environ["FEDEXP_DATA_DIR"]))
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [55000, 5000, 10000]
    train, validation = torch.bincount(dataset.train.y), torch.bincount(dataset.validation.y)
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (train + validation).tolist() == published
    assert (validation - torch.tensor(published) / 12).abs().max() <= 1
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(dataset.test.y).tolist() == test
    pixels = torch.cat([part.as_floats().x for part in (dataset.train, dataset.validation)])
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
