"""A run folder from a stranger: nothing in it is run, and nothing outside it changes."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import yaml

import fedexp
from fedexp.commands.cli import run_command
from fedexp.run_folder.rows import count_until
from tests.support import gadgets

slow = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("without_pictures")

RESUME = ("resume", "theirs")
LEAKAGE = ("leakage", "theirs", "leakage=loss_threshold")


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder of the user's, with a file in it that a hostile folder is after."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "precious").write_text("mine\n")
    monkeypatch.setenv(gadgets.MARK, str(folder / "mark"))
    yield folder
    assert {path.name for path in folder.iterdir()} == {"precious"}, "something was run or written"
    assert (folder / "precious").read_text() == "mine\n"


@pytest.fixture
def theirs(here, killed_run):
    """A copy of the folder of a run that was killed, to be made hostile."""
    return shutil.copytree(killed_run, here / "theirs")


def change(folder, **groups):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), groups)))


def merged(node, changes):
    if not (isinstance(node, dict) and isinstance(changes, dict)) or "_target_" in changes:
        return changes
    return {**node, **{key: merged(node.get(key), value) for key, value in changes.items()}}


def refused(capfd, *command):
    """The one line of a command that ends with exit code 2."""
    assert run_command(list(map(str, command))) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1), error
    assert error.startswith("fedexp: ")
    return error


TARGETS = {
    "code that the config itself trusts": {
        "trust": ["tests."],
        "model": {"_target_": "tests.support.gadgets.run"},
    },
    "code of the library": {"model": {"_target_": "tests.support.gadgets.run"}},
    "a function of ours that appends to a file": {
        "update_validation": {
            "_target_": "fedexp.core.files.append",
            "path": "{outside}/precious",
            "content": b"theirs",  # YAML has bytes, and OmegaConf too
        }
    },
    "a command of ours": {
        "update_validation": {
            "_target_": "fedexp.commands.cli.run_command",
            "arguments": ["run", "hydra.run.dir={outside}/run"],
        }
    },
    "a pickle": {"model": {"_target_": "torch.load", "f": "{folder}/evil.pt"}},
    "a name that only passes through torch": {
        "model": {"_target_": "torch.nn.functional.torch.hub.load", "repo_or_dir": "x"}
    },
    "code inside a part": {"training": {"schedule": {"_target_": "tests.support.gadgets.run"}}},
    "an interpolation that makes a target": {
        "model": {"hidden": ["${{oc.create:{{_target_:tests.support.gadgets.run}}}}"]}
    },
    "figures sent elsewhere": {
        "tracker": {
            "mlflow": {
                "_target_": "fedexp.observers.mlflow.MLflow",
                "tracking_uri": "file://{outside}/mlruns",
                "experiment": "x",
                "clients": False,
            }
        }
    },
}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_built_but_parts(theirs, outside, capfd, name):
    change(theirs, **filled(TARGETS[name], outside, theirs))
    refused(capfd, *RESUME)
    if name != "figures sent elsewhere":  # trackers watch no study
        refused(capfd, *LEAKAGE)


def filled(node, outside, folder):
    if isinstance(node, dict):
        return {key: filled(value, outside, folder) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, outside, folder) for value in node]
    return node.format(outside=outside, folder=folder) if isinstance(node, str) else node


def test_which_trust_is_asked_for_is_said_and_only_the_command_line_gives_it(theirs, capfd):
    change(theirs, trust=["tests.", "json"])
    error = refused(capfd, *RESUME)
    assert error.startswith("fedexp: trust=[tests.,json]: the run's config.yaml asks for code")
    assert "trust=[tests.,json]" in refused(capfd, *LEAKAGE)
    assert run_command([*RESUME, "trust=[]"]) == 0
    assert "trust=[tests.,json]" in refused(capfd, *RESUME)  # also where nothing is left to do
    assert run_command([*RESUME, "trust=[tests.]"]) == 0


LINKED_FILES = (".lock", "fedexp.log", "metrics.csv", "summary.json", "report.md", "plots/a.png")
LINKED_FOLDERS = ("plots", "checkpoints", "client_state", "leakage", "updates", "updates/round-1")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in (".lock", "fedexp.log", "plots") else slow)
        for name in (*LINKED_FILES, *LINKED_FOLDERS)
    ],
)
def test_no_link_is_written_through(theirs, outside, capfd, name):
    place = theirs / name
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.symlink_to(outside if name in LINKED_FOLDERS else outside / "precious")
    for command in (RESUME, LEAKAGE, ("report", "theirs")):
        assert f"{name}: is a link to {outside}" in refused(capfd, *command)


def test_what_is_written_all_the_same_is_written_beside_links(theirs, outside, monkeypatch):
    monkeypatch.setattr("fedexp.core.files.refuse_ways_out", lambda folder: None)  # one door fails
    # The names of half-written files cannot be foreseen, and what is there is replaced.
    for name in (".report.md.tmp", ".summary.json.tmp", "checkpoints/.best.pt.tmp", "report.md"):
        (theirs / name).symlink_to(outside / "precious")
    # As in a backup made of hard links.
    (theirs / "fedexp.log").unlink()
    (theirs / "fedexp.log").hardlink_to(outside / "precious")
    (theirs / "latest").symlink_to("checkpoints")  # a link that stays in the folder
    assert run_command(list(RESUME)) == 0
    assert (theirs / "fedexp.log").read_text().startswith("mine\n20")
    assert not (theirs / "report.md").is_symlink()


def test_a_sweep_does_not_write_its_document_through_a_link(here, outside, capfd):
    (here / "sweep").mkdir()
    (here / "sweep" / "multirun.yaml").symlink_to(outside / "precious")
    line = refused(capfd, "run", "-m", "seed=0,1", "hydra.sweep.dir=sweep")
    assert "multirun.yaml: is a link to" in line


def test_a_pipe_in_the_folder_keeps_nobody_waiting(theirs, capfd):
    os.mkfifo(theirs / "checkpoints" / "pipe")
    for command in (RESUME, LEAKAGE, ("report", "theirs")):
        assert "is a pipe, no file" in refused(capfd, *command)


# Contents: what each makes of a finished run's folder.


def _json(name, **values):
    def write(folder):
        path = folder / name
        document = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**document, **values}))

    return write


def _text(name, text):
    def write(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return write


def _config(**groups):
    return lambda folder: change(folder, **groups)


def _huge(folder):
    os.truncate(folder / "config.yaml", 2**40)  # of holes


def _pipe(name):
    def write(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return write


class _Gadget:
    def __reduce__(self):
        return gadgets.run, ()


def _checkpoints(content):
    """Every checkpoint with another content, and notes of an older version that agree with it."""

    def write(folder):
        for path in (folder / "checkpoints").glob("*.pt"):
            path.write_bytes(content)
            round = 1 if path.stem == "best" else int(path.stem.removeprefix("round-"))
            note = {"round": round, "sha256": hashlib.sha256(content).hexdigest()}
            note["rows"] = count_until(folder, round)
            path.with_suffix(".json").write_text(json.dumps(note))

    return write


def _findings(folder, name="theirs", **values):
    place = folder / "leakage" / "theirs"
    place.mkdir(parents=True)
    (place / "figures.csv").write_text(f"subject,round,target,metric,value\n{HTML},1,0,psnr_db,3\n")
    np.savez(place / "pictures.npz", roc=np.array([{"a": _Gadget()}], dtype=object))
    document = {"name": name, "study": "x", "settings": {}, "headline": {"psnr_db": 1.0}}
    words = {"conclusions": [], "adversary": "a", "seconds": 1.0}
    (place / "findings.json").write_text(json.dumps({**document, **words, **values}))


def _bomb(folder):
    _findings(folder)
    head = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (2**43,)}
    np.lib.format.write_array_header_1_0(head, about)
    with zipfile.ZipFile(folder / "leakage/theirs/pictures.npz", "w") as archive:
        archive.writestr("roc.npy", head.getvalue())


def _updates(content):
    def write(folder):
        _text("updates/round-000001/client-00000.pth", "")(folder)
        (folder / "updates/round-000001/client-00000.pth").write_bytes(content)
        row = f"1,0,0,1,1.0,round-000001/client-00000.pth,{hashlib.sha256(content).hexdigest()}\n"
        head = "round,client,malicious,num_examples,norm,file,sha256\n"
        (folder / "updates" / "index.csv").write_text(head + row)

    return write


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e"
HTML = "<script>alert(1)</script>![x](http://theirs/x.png)[y](javascript:z)"
NESTED = b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s."
CONTENTS = {
    "aliases that unfold": _text(
        "config.yaml",
        "a0: &a0 [x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 60)),
    ),
    "a config nested deep": _text("config.yaml", "a: " + "[" * 100_000),
    "a config of a terabyte": _huge,
    "a tag that makes objects": _text("config.yaml", "a: !!python/object/apply:os.getcwd []\n"),
    "data that are to be put elsewhere": _config(paths={"data_dir": "/nowhere/theirs"}),
    "an interpolation": _config(objective="${oc.env:HOME}"),
    "groups that are none": _config(attack=3),
    "choices that are none": _config(choices=["a", 1]),
    "a config that is a pipe": _pipe("config.yaml"),
    "a summary nested deep": _text("summary.json", '{"final": ' + "[" * 100_000),
    "figures that are none": _json("summary.json", final={"test": 3}, seconds="long"),
    "a number of a thousand digits": _json("summary.json", seconds=10**1000),
    "a promise that is none": _json("summary.json", privacy={"epsilon": "small"}),
    "a partition of ragged rows": _json("partition.json", counts=[[1], [1, 2]]),
    "a record that is a pipe": _pipe("metrics.csv"),
    "a record of other kinds": _text("metrics.csv", "round,scope,client,metric,value\nx,y,z,1,w\n"),
    "timing of other kinds": _text("timing.jsonl", '{"round": 1, "train": "x"}\n[]\n'),
    "words that move the cursor": _json("summary.json", error=ESCAPES, remarks=[ESCAPES]),
    "words that are HTML": _json(
        "summary.json", error=HTML, remarks=[HTML], choices={"model": HTML}
    ),
    "names that are HTML": _json("partition.json", class_names=[HTML, ESCAPES, "$x^$"]),
    "a state that is code": _checkpoints(pickle.dumps(_Gadget())),
    "a state nested deep": _checkpoints(NESTED),
    "findings that are code": _findings,
    "findings whose name leads out": lambda folder: _findings(folder, name="../../../../home/x"),
    "findings of other kinds": lambda folder: _findings(folder, headline=[1], seconds="x"),
    "pictures of terabytes": _bomb,
    "an update that is code": _updates(pickle.dumps(_Gadget())),
    "an update nested deep": _updates(NESTED),
    "a study whose name leads out": _config(
        leakage={"../../../home/x": {"_target_": "fedexp.leakage.membership.lira.LiRA"}}
    ),
}


# Of each kind one; the others are slow for their number.
ONE_OF_A_KIND = (
    *("aliases that unfold", "an interpolation", "groups that are none", "a record that is a pipe"),
    *(
        "figures that are none",
        "words that are HTML",
        "names that are HTML",
        "a state that is code",
    ),
    *("a state nested deep", "findings whose name leads out", "pictures of terabytes"),
    *("an update that is code", "a study whose name leads out"),
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ONE_OF_A_KIND else slow) for name in CONTENTS],
)
def test_no_content_does_more_than_be_refused(here, outside, whole_run, capfd, name):
    theirs = shutil.copytree(whole_run, here / "theirs")
    CONTENTS[name](theirs)
    started = time.process_time()
    for command in (
        RESUME,
        LEAKAGE,
        ("report", "theirs"),
        ("detect", "fit", "theirs", "--out", "d.safetensors"),
        ("detect", "scan", "theirs", "--detector", "theirs/model.safetensors"),
    ):
        code = run_command(list(command))  # a traceback fails the test
        said, error = capfd.readouterr()
        assert code in (0, 1, 2), command
        assert code != 2 or (said == "" and error.count("\n") == 1), error
        assert "\x1b" not in said + error
        assert "\u202e" not in said + error
    for read in ("metrics", "clients", "leakage"):
        with suppress(fedexp.InputError):
            getattr(fedexp.load(theirs), read)
    page = theirs / "report.md"
    assert "<script" not in page.read_text()
    assert not re.search(r"\]\((?!plots/)", page.read_text())
    assert time.process_time() - started < 60  # it hangs on nothing; most take a second
