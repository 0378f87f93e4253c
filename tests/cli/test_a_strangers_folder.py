"""A run folder from a stranger: nothing in it is run, and nothing outside it changes."""

import os
import shutil

import pytest
from omegaconf import OmegaConf

from fedexp.commands.cli import run_command
from tests.support import gadgets

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
    config = OmegaConf.load(path)
    path.write_text(OmegaConf.to_yaml(OmegaConf.merge(config, OmegaConf.create(groups))))


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
            "content": "theirs",
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


LINKED_FILES = (".lock", "fedexp.log", "metrics.jsonl", "summary.json", "report.md", "plots/a.png")
LINKED_FOLDERS = ("plots", "checkpoints", "client_state", "leakage", "updates", "updates/round-1")


@pytest.mark.parametrize("name", [*LINKED_FILES, *LINKED_FOLDERS])
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
