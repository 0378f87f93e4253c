"""Images decoded once: what is kept, when it is decoded anew, and that nothing is left half."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedexp.core.checks import InputError
from fedexp.data import pixel_cache
from fedexp.data.decode import Decoding, Unreadable
from fedexp.data.pixel_cache import PixelCache, cache_folder
from tests.support.own_files import make_images, own_loader

GREY, COLOUR = Decoding(4, 1, "pad", None), Decoding(4, 3, "pad", None)
RED = np.full((4, 4, 3), [200, 0, 0], np.uint8)


def saved(place, pixels, **how):
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place, **how)
    return place.read_bytes()


@pytest.fixture
def folder(tmp_path):
    for k in range(6):
        saved(tmp_path / "in" / f"{k}.png", np.full((4, 4), 10 * k, np.uint8))
    (tmp_path / "in" / "2.png").write_bytes(b"no image")
    old = 1_000_000_000  # long ago: the times tell
    for place in (tmp_path / "in").iterdir():
        os.utime(place, (old, old))
    (tmp_path / "kept").mkdir()
    return tmp_path


FILES = [f"{k}.png" for k in range(6)]


class Counting:
    """A decoder that counts."""

    def __init__(self, monkeypatch):
        self.files = 0
        original = Decoding.__call__

        def count(decoding, content):
            self.files += 1
            return original(decoding, content)

        monkeypatch.setattr(Decoding, "__call__", count)


@pytest.fixture
def decoded(monkeypatch):
    monkeypatch.setattr(pixel_cache, "SETTLED", -1e9)  # what the clock says is believed at once
    return Counting(monkeypatch)


def values(cache, folder, rows):
    known = cache.known(folder / "in", FILES)
    place = cache.pixels(known, folder / "in", FILES, np.array(rows))
    return np.fromfile(place, np.uint8).reshape(len(rows), -1)[:, 0].tolist()


def test_every_image_is_decoded_once_in_whatever_order_it_is_asked_for(folder, decoded):
    cache = PixelCache(folder / "kept", GREY)
    assert values(cache, folder, [4, 0, 1, 3, 5]) == [40, 0, 10, 30, 50]
    assert decoded.files == 6
    assert values(cache, folder, [0, 1, 3, 4, 5]) == [0, 10, 30, 40, 50]
    assert values(cache, folder, [4, 0, 1, 3, 5]) == [40, 0, 10, 30, 50]
    assert decoded.files == 6
    assert not list((folder / "kept").glob("*unordered*"))
    assert not list((folder / "kept").glob("*.tmp"))


def test_what_cannot_be_decoded_is_known_too(folder):
    known = PixelCache(folder / "kept", GREY).known(folder / "in", FILES)
    assert known.reasons == ("", "", "is no image", "", "", "")
    assert known.pictures[2] is None


def test_other_content_under_the_same_name_is_seen(folder, decoded):
    cache = PixelCache(folder / "kept", GREY)
    assert values(cache, folder, [0, 1]) == [0, 10]
    saved(folder / "in" / "1.png", np.full((4, 4), 99, np.uint8))
    assert values(cache, folder, [0, 1]) == [0, 99]


def test_another_size_is_another_file(folder):
    small, large = PixelCache(folder / "kept", GREY), PixelCache(folder / "kept", COLOUR)
    assert values(small, folder, [1]) == values(large, folder, [1]) == [10]
    assert len(list((folder / "kept").glob("*.u8"))) == 2


def test_a_file_that_was_cut_short_is_made_anew(folder, decoded):
    cache = PixelCache(folder / "kept", GREY)
    values(cache, folder, [0, 1, 3, 4, 5])
    (whole,) = (folder / "kept").glob("*.u8")
    whole.write_bytes(whole.read_bytes()[:7])
    assert values(cache, folder, [0, 1, 3, 4, 5]) == [0, 10, 30, 40, 50]


def test_a_full_disk_is_refused_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda place: Full)
    with pytest.raises(InputError, match=r"need 0.00 GB in .*FEDEXP_DATA_DIR names another"):
        values(PixelCache(folder / "kept", GREY), folder, [0])
    assert not list((folder / "kept").glob("*.u8"))


class Full:
    free = 10


def test_where_nothing_can_be_written_it_goes_elsewhere_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    blocked = tmp_path / "file"
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: blocked / "cache")
    monkeypatch.setattr(pixel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    place, remark = cache_folder(blocked)
    assert place.parent == tmp_path
    assert place.stat().st_mode & 0o777 == 0o700
    assert str(place) in remark
    place.chmod(0o777)
    with pytest.raises(InputError, match="is not this user's alone"):
        cache_folder(blocked)


def test_the_parts_of_a_folder_are_views_of_one_file(tmp_path):
    loader = own_loader("images", tmp_path)
    dataset = loader(tmp_path / "data")
    parts = list(dataset.parts.values())
    assert len({part.x.untyped_storage().data_ptr() for part in parts}) == 1
    assert all((part.site.diff() >= 0).all() for part in parts)  # each site side by side
    for part in parts:  # and what a row shows is what its file shows
        assert part.x.shape[1:] == (1, 64, 64)
    again = loader(tmp_path / "data")
    assert torch.equal(again.train.x, dataset.train.x)


@pytest.mark.parametrize(
    ("pixels", "decoding", "expected"),
    [
        (RED, COLOUR, [200, 0, 0]),
        (RED, GREY, [60]),  # 0.299 red
        (np.full((4, 4), 257 * 7, np.uint16), GREY, [7]),
        (np.full((4, 4), 4095, np.uint16), Decoding(4, 1, "pad", 4095), [255]),
        (np.dstack([RED, np.full((4, 4), 0, np.uint8)]), COLOUR, [0, 0, 0]),  # see through: black
        (np.dstack([RED, np.full((4, 4), 255, np.uint8)]), COLOUR, [200, 0, 0]),
    ],
    ids=["red", "grey", "16 bits", "12 bits", "transparent", "opaque"],
)
def test_pixels_by_hand(tmp_path, pixels, decoding, expected):
    found, _ = decoding(saved(tmp_path / "x.png", pixels))
    assert found.shape == decoding.shape
    assert found[:, 2, 2].tolist() == expected


@pytest.mark.parametrize(("fit", "ends"), [("pad", 0), ("crop", 90), ("stretch", 90)])
def test_how_it_becomes_a_square(tmp_path, fit, ends):
    wide = saved(tmp_path / "x.png", np.full((4, 8), 90, np.uint8))
    found, picture = Decoding(8, 1, fit, None)(wide)
    assert found[0, 0, 4] == ends
    assert found[0, 4, 4] == 90
    assert (picture.width, picture.height) == (8, 4)


def test_numbers_without_a_white_are_no_image(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "x.tif")
    content = (tmp_path / "x.tif").read_bytes()
    with pytest.raises(Unreadable, match=r"values 0.5 to 0.5; say which is white"):
        GREY(content)
    assert Decoding(4, 1, "pad", 1.0)(content)[0][0, 0, 0] == 128


@pytest.mark.slow
def test_two_processes_at_once_find_the_same(tmp_path):
    path = make_images(tmp_path)
    code = (
        "from pathlib import Path; from tests.support.composing import part;"
        f"loader = part('dataset', 'images', 'dataset.path={path}', 'dataset.input_shape=null',"
        f"'dataset.num_classes=null'); print(loader(Path('{tmp_path}/data')).digest)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate()[0] for process in both]
    assert answers[0] == answers[1] != ""
    kept = list(Path(tmp_path, "data", "decoded").iterdir())
    assert len([p for p in kept if p.suffix == ".u8"]) == 1
    assert not [p for p in kept if p.suffix == ".tmp"]
