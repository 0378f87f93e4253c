"""`fedexp data check` of a person's own folder or file, and of own datasets beside ours."""

import shutil
import struct
import zlib

import pytest

from fedexp.commands.cli import run_command
from tests.support.own_files import make_arrays, make_images, make_table

OURS = "digits          ok       1257 train"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDEXP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def said(capsys, *arguments):
    code = run_command(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_clean_folder_is_counted(here, capsys):
    rows = len((make_images(here) / "manifest.csv").read_text().splitlines()) - 1
    code, out, _ = said(capsys, "data", "check", "images")
    assert code == 0
    assert f"{rows} examples, 2 classes, 3 sites, 26 patients" in out
    assert "north healthy" in out
    assert f"modes: {rows} L" in out
    assert out.splitlines()[-1] == "clean"


def test_everything_that_is_wrong_is_listed_and_the_exit_code_is_1(here, capsys):
    folder = make_images(here)
    lines = (folder / "manifest.csv").read_text().splitlines()
    parts = ["split"] + [("train", "train", "val", "test")[k % 4] for k in range(len(lines) - 1)]
    one_class = [line.replace("sick", "healthy") if "clinic" in line else line for line in lines]
    table = [f"{a},{b}" for a, b in zip(one_class, parts, strict=True)]
    (folder / "manifest.csv").write_text("\n".join(table))
    first, second = (line.split(",")[0] for line in lines[1:3])
    (folder / first).write_bytes(b"\x89PNG")
    shutil.copy(folder / second, folder / lines[3].split(",")[0])
    code, out, _ = said(capsys, "data", "check", "./images")
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("wrong: ")]
    assert f"wrong: {first} is no image" in wrong
    assert "wrong: site clinic has no example of class sick" in wrong
    assert any(line.startswith("wrong: patient north-1 is in ") for line in wrong)
    assert any("are the same image, in two parts" in line for line in wrong)
    assert out.splitlines()[-1] == f"{len(wrong)} things are wrong"


def test_files_are_looked_through_too(here, capsys):
    code, out, _ = said(capsys, "data", "check", str(make_arrays(here)))
    assert code == 0
    assert "60 examples, 3 classes, 2 sites, 30 patients" in out
    assert "images of 1x8x8, uint8" in out
    path = str(make_table(here))
    keys = ["dataset.label=label", "dataset.site=hospital"]
    code, out, _ = said(capsys, "data", "check", path, *keys)
    assert code == 0
    assert "60 examples, 2 classes, 2 sites, 30 patients" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nope"], "NAME=nope: "),
        (["./nope"], "NAME=./nope: there is no such folder or file"),
        (["own.csv"], "dataset.label=: say which: dataset.label=COLUMN"),
        (["own.csv", "dataset.lable=x"], "dataset.lable"),
        (["own.csv", "dataset.label=age2"], "dataset.label=age2: own.csv has no column age2"),
        (["dataset.size=3"], "dataset.size=3: is of a dataset, and none is named"),
        (["text.md"], "NAME=text.md: is neither a folder nor a file of .npz"),
        (["--config-dir", "nowhere"], "--config-dir=nowhere: there is no such folder"),
        (["trust=mine"], "trust=mine: must be a list of packages"),
    ],
)
def test_refused_in_one_line(here, capsys, arguments, expected):
    make_table(here)
    (here / "text.md").touch()
    code, _, err = said(capsys, "data", "check", *arguments)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_one_broken_yaml_breaks_no_other(here, capsys):
    mine = here / "mine" / "dataset"
    mine.mkdir(parents=True)
    (mine / "bad.yaml").write_text("# Mine\n_target_: [unclosed\n")
    (mine / "odd.yaml").write_text("just words\n")
    (mine / "own.yaml").write_text(
        "# Mine, not trusted\n_target_: tests.support.own_data.Table\n"
        "name: own\ninput_shape: [30]\nnum_classes: 2\n"
    )
    code, out, err = said(capsys, "data", "check", "--config-dir", "mine")
    assert code == 1
    assert OURS in out
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert states["bad"] == states["odd"] == states["own"] == "broken"
    assert "trust=[tests.]" in out
    assert err == ""
    code, out, _ = said(capsys, "data", "check", "own", "--config-dir", "mine", "trust=[tests.]")
    assert code == 0
    assert "own             ok       369 train" in out
    code, out, _ = said(capsys, "list", "dataset", "--config-dir", "mine", "trust=[tests.]")
    assert code == 0
    assert "bad" in out
    assert "Mine, not trusted" in out
    assert "Handwritten digits" in out


def test_a_bomb_of_pixels_is_a_line_and_no_flood(here, capsys):
    folder = make_images(here)
    place = folder / "north" / "000_0.png"
    content = bytearray(place.read_bytes())
    content[16:24] = struct.pack(">II", 20000, 20000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    place.write_bytes(content)
    code, out, _ = said(capsys, "data", "check", "./images")
    assert code == 1
    assert "wrong: north/000_0.png is damaged: Image size (400000000 pixels) exceeds" in out
