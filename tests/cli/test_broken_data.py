"""Twenty and more broken folders, files and tables: one line that names the file or the row.

Either the run is refused with exit code 2, and nothing is written, or what cannot be used is left
out and said (`Dataset.remarks`). All in this process, up to where a run would begin.
"""

import os
import zlib

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from fedexp.config.found import settle
from fedexp.config.parts import Parts, prefixed
from fedexp.config.schema import register
from fedexp.core.checks import InputError
from fedexp.data.folder import data_folder
from fedexp.data.loader import load_anew
from tests.support.composing import CONF


def image(path, mode="L", size=(12, 10), value=None, seed=0, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(f"{path.name} {seed}".encode()))
    pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **how)
    return path


def tree(folder, n=8, classes=("a", "b")):
    for name in classes:
        for k in range(n):
            image(folder / name / f"{k}.png", seed=f"{name}{k}")
    return folder


def manifest(folder, rows, columns="path,label,site,patient", encoding="utf-8"):
    for row in rows:
        path = folder / row.split(",")[0]
        if ".." not in row and not path.exists() and path.suffix == ".png":
            image(path, seed=row)
    (folder / "manifest.csv").write_bytes("\n".join([columns, *rows]).encode(encoding))
    return folder


ROWS = [f"{k}.png,{'ab'[k % 2]},{'ns'[k % 4 // 2]},p{k // 4 * 2 + k % 2}" for k in range(32)]


def remade(rows, at, text):
    return [*rows[:at], text, *rows[at + 1 :]]


def no_label_column(folder):
    return manifest(folder, ROWS, "path,Lable,site,patient")


def label_only_in_test(folder):
    parts = [f"{k}.png,{'ab'[k % 2]},{['train', 'val', 'test'][k % 3]}" for k in range(12)]
    return manifest(folder, [*parts, "x.png,rare,test"], "path,label,split")


def patient_in_two_splits(folder):
    rows = [f"{k}.png,{'ab'[k % 2]},q{k},{['train', 'val', 'test'][k % 3]}" for k in range(12)]
    return manifest(folder, remade(rows, 5, "5.png,b,q3,test"), "path,label,patient,split")


def site_of_one_image(folder):
    return manifest(folder, [*ROWS, "lone.png,a,lonely,p99"])


def truncated_png(folder):
    victim = tree(folder) / "a" / "3.png"
    victim.write_bytes(victim.read_bytes()[:120])
    return folder


def sixteen_bits(folder):
    grey = np.linspace(0, 4095, 120).reshape(10, 12).astype(np.uint16)
    Image.fromarray(grey).save(tree(folder) / "a" / "deep.png")
    return folder


def cmyk(folder):
    image(tree(folder) / "a" / "print.jpg", mode="CMYK")
    return folder


def outside(folder):
    image(folder.parent / "secret.png")
    return manifest(folder, remade(ROWS, 3, "../secret.png,b,n,p3"))


def absolute(folder):
    return manifest(folder, remade(ROWS, 3, "/etc/passwd,b,n,p3"))


def link_outside(folder):
    image(folder.parent / "secret.png")
    os.symlink(folder.parent / "secret.png", tree(folder) / "a" / "linked.png")
    return folder


def path_twice(folder):
    return manifest(folder, [*ROWS, ROWS[4]])


def path_twice_with_other_labels(folder):
    return manifest(folder, [*ROWS, "4.png,b,n,p2"])


def not_utf8(folder):
    return manifest(folder, [*ROWS, "z.png,Ödem,n,p7"], encoding="latin-1")


def labels_from_one(folder):
    return manifest(folder, [f"{k}.png,{k % 3 + 1}" for k in range(24)], "path,label")


def quoted_labels(folder):
    rows = [f'{k}.png,"{("NA", "né, gros")[k % 2]}"' for k in range(24)]
    return manifest(folder, rows, "path,label")


def empty_class(folder):
    (tree(folder) / "c").mkdir()
    return folder


def empty_folder(folder):
    return folder


def rgba(folder):
    image(tree(folder) / "a" / "glass.png", mode="RGBA")
    return folder


def animated(folder):
    frames = [Image.new("RGB", (8, 8), (k, 0, 255 - k)) for k in (0, 60, 120)]
    place = tree(folder) / "a" / "moving.gif"
    frames[0].save(place, save_all=True, append_images=frames[1:])
    return folder


def links_in_a_circle(folder):
    tree(folder)
    os.symlink(folder / "a", folder / "a" / "again")
    os.symlink(folder / "b" / "y.png", folder / "b" / "x.png")
    os.symlink(folder / "b" / "x.png", folder / "b" / "y.png")
    return folder


def folder_that_is_a_circle(folder):
    os.symlink(folder / "one", folder / "two")
    os.symlink(folder / "two", folder / "one")
    return folder / "one"


def mixed_depths(folder):
    image(tree(folder) / "a" / "deeper" / "x.png")
    return folder


def no_classes(folder):
    image(folder / "x.png")
    return folder


def one_class(folder):
    return tree(folder, classes=("only",))


def not_there(folder):
    return manifest(folder, [*ROWS, "gone.PNG,a,n,p1"])


def text_called_png(folder):
    (tree(folder) / "b" / "words.png").write_text("not an image")
    return folder


def no_label(folder):
    return manifest(folder, remade(ROWS, 6, "6.png,,n,p2"))


def two_few(folder):
    return tree(folder, n=1)


def unknown_part(folder):
    rows = [f"{k}.png,{'ab'[k % 2]},{['train', 'val', 'tset'][k % 3]}" for k in range(12)]
    return manifest(folder, rows, "path,label,split")


def other_files(folder):
    (tree(folder) / "a" / "scan.dcm").write_bytes(b"DICM")
    return folder


def same_image_twice(folder):
    rows = [f"{k}.png,{'ab'[k % 2]},{['train', 'val', 'test'][k % 3]}" for k in range(12)]
    manifest(folder, rows, "path,label,split")
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    return folder


def same_image_three_times(folder):
    rows = [f"{k}.png,{'ab'[k % 2]},{['train', 'val', 'test'][k % 3]}" for k in range(12)]
    manifest(folder, rows, "path,label,split")
    for copy in ("6.png", "9.png"):
        (folder / copy).write_bytes((folder / "0.png").read_bytes())
    return folder


# Case -> what is said; "!" before it: the run is refused, else it is a remark or nothing at all.
FOLDERS = {
    no_label_column: "!manifest.csv has no column label; did you mean Lable?",
    label_only_in_test: "!class rare has no training example, and is in test (x.png)",
    patient_in_two_splits: "!patient q3 is in train (3.png) and in test (5.png)",
    site_of_one_image: "site lonely has no test examples",
    truncated_png: "a/3.png (is damaged: ",
    sixteen_bits: "1 images have more than 8 bits: 65535 is taken for white, and the brightest "
    "value is 4095",
    cmyk: "1 of 17 images are in colour and become grey",
    outside: "!manifest.csv line 5: ../secret.png lies outside the folder",
    absolute: "!manifest.csv line 5: /etc/passwd lies outside the folder",
    link_outside: "a/linked.png (is a link, and none is followed to a folder or out of it)",
    path_twice: "manifest.csv line 34 (names 4.png again (line 6))",
    path_twice_with_other_labels: "!manifest.csv line 34: 4.png is labelled b, and a in line 6",
    not_utf8: "!manifest.csv, line 34: is not UTF-8 text",
    labels_from_one: "",
    quoted_labels: "class NA counts as a class",
    empty_class: "the folder c holds no image",
    empty_folder: "!holds no images",
    rgba: "1 of 17 images are in colour",
    animated: "a/moving.gif (has 3 frames, and single images are read)",
    links_in_a_circle: "a/again (is a link, and none is followed",
    folder_that_is_a_circle: "!cannot be read: ",
    mixed_depths: "!images lie at different depths, as a/0.png and a/deeper/x.png",
    no_classes: "!x.png lies in no folder that says its class",
    one_class: "!there is one class only, only",
    not_there: "gone.PNG (is not there (manifest.csv line 34))",
    text_called_png: "b/words.png (is no image)",
    no_label: "6.png (has no label (manifest.csv line 8))",
    two_few: "!2 examples are too few: the validation part would be empty",
    unknown_part: "!2.png is in a part 'tset'; did you mean test?",
    other_files: "1 other files are not read (1 .dcm)",
    same_image_twice: "0.png and 2.png are the same image, in two parts",
    same_image_three_times: "0.png and 9.png are the same image, with two labels",
}


def table(folder, **changes):
    n, rng = 40, np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(50, 9, n).round(1),
            "sex": rng.choice(["f", "m"], n),
            "label": np.where(np.arange(n) % 2, "ill", "well"),
            "split": (["train"] * 6 + ["val"] + ["test"] * 3) * 4,
        }
    )
    for column, values in changes.items():
        frame[column] = values(frame) if callable(values) else values
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def holes(frame):
    return frame["age"].where(frame.index % 5 > 0)


def new_in_test(frame):
    return frame["sex"].where(frame.index != 9, "x")


TABLES = {
    "NaN in a table": ({"age": holes}, "missing numbers are the training rows' median: age (8)"),
    "constant column": ({"same": 3}, "column same is left out: it is the same in every training"),
    "unseen category": ({"sex": new_in_test}, "column sex: no training row has x, as t.csv line"),
    "no label at all": ({"label": ""}, "!t.csv has no row with a label"),
    "empty column": ({"void": ""}, "column void is left out: no training row has a value"),
    "too large": ({"dose": lambda f: f.index * 1e300}, "!column dose holds 1e+300 in t.csv line 3"),
    "too large at last": (
        {"dose": lambda f: np.where(f.index == 9, 1e30, 1e-30 * f.index)},
        "!, standardised, in t.csv line 11, which is too large to learn from",
    ),
    "names": (
        {"age": lambda f: [f"n{k}" for k in f.index], "sex": lambda f: [f"s{k}" for k in f.index]},
        "!no column is left to learn from: column age is left out: 24 different words",
    ),
}


def arrays(folder, **changed):
    good = {"x": np.zeros((20, 4, 4), np.uint8), "y": np.arange(20) % 2}
    np.savez(folder / "a.npz", **{k: v for k, v in (good | changed).items() if v is not None})
    return folder / "a.npz"


ARRAYS = {
    "pickled objects": ({"y": np.array(["a", 1] * 10, object)}, "!array y holds pickled objects"),
    "different length": ({"y": np.arange(19) % 2}, "!x has 20 examples, and y 19 entries"),
    "no y": ({"y": None}, "!has no array y"),
    "labels from 1": ({"y": np.arange(20) % 2 + 1}, ""),
    "words": ({"y": np.array(["well", "ill"] * 10)}, ""),
    "halves": ({"y": np.arange(20) % 2 / 2}, "!y[1] is 0.5, and no whole number or word"),
    "sixteen bits": ({"x": np.zeros((20, 4, 4), np.uint16)}, "!x is uint16: save bytes (uint8)"),
    "too bright": ({"x": np.full((20, 4, 4), 7.0)}, "!x[0] holds pixels 7 to 7"),
    "not finite": (
        {"x": np.full((20, 4), np.nan)},
        "!x[0] holds numbers that are not finite as float32: nan",
    ),
    "too large": ({"x": np.full((20, 4), 1e300)}, "!x[0] holds numbers that are not finite as"),
    "one image": ({"x": np.zeros((20,))}, "!x is [20]: it must hold n images or n rows"),
    "class names too few": ({"class_names": np.array(["a"])}, "!y must hold whole numbers 0 to 0"),
}


@pytest.fixture(scope="module")
def composed():
    register()
    made = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choice in ("images", "arrays", "table"):
            made[choice] = compose("config", [f"dataset={choice}", "dataset.path=x"])
    return made


@pytest.fixture
def attempt(composed, tmp_path, monkeypatch):
    """From a config to the dataset, as a run goes: its remarks."""
    monkeypatch.setenv("FEDEXP_DATA_DIR", str(tmp_path / "data"))

    def go(choice, path, **keys):
        config = composed[choice].copy()
        small = {"size": 8} if choice == "images" else {}
        config.dataset = OmegaConf.merge(config.dataset, {"path": str(path)}, small, keys)
        settle(config)
        loader = Parts({"dataset": OmegaConf.to_container(config.dataset)})("dataset")
        with prefixed("dataset"):
            return load_anew(loader, data_folder(None)).remarks

    return go


def tell(expected, attempt, *arguments, **keys):
    """What is said must hold `expected` in one line; "!" before it: it is a refusal."""
    if expected.startswith("!"):
        with pytest.raises(InputError) as refused:
            attempt(*arguments, **keys)
        assert expected[1:] in str(refused.value)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith("dataset.")
    else:
        remarks = attempt(*arguments, **keys)
        assert any(expected in remark and "\n" not in remark for remark in remarks) or not expected
        assert expected or not remarks


def half_written(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("make", FOLDERS, ids=lambda make: make.__name__)
def test_a_folder(make, attempt, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    tell(FOLDERS[make], attempt, "images", make(folder))
    assert not half_written(tmp_path)


@pytest.mark.parametrize("name", TABLES)
def test_a_table(name, attempt, tmp_path):
    changes, expected = TABLES[name]
    path = table(tmp_path, **changes)
    tell(expected, attempt, "table", path, label="label")


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array(name, attempt, tmp_path):
    changed, expected = ARRAYS[name]
    tell(expected, attempt, "arrays", arrays(tmp_path, **changed))
