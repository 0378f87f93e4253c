"""`fedexp resume SWEEP`: refused with the command that does go on with a sweep."""

import shlex

import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import summary_of

pytestmark = pytest.mark.usefixtures("without_pictures")


def _command(capfd, folder):
    assert run_command(["resume", folder]) == 2
    line = capfd.readouterr().err.rstrip("\n")
    assert line.startswith(f"fedexp: RUN_DIR={folder}: is a sweep, which its own command")
    return shlex.split(line.rpartition("stopped: ")[2])


def test_the_command_that_is_named_goes_on_with_it(here, capfd):
    quick = ["debug=fast", "quiet=true", "n_clients=4", "hydra.launcher.workers=1"]
    assert run_command(["run", "-m", "seed=0", *quick, "hydra.sweep.dir='a b'"]) == 0
    capfd.readouterr()
    name, *words = _command(capfd, "a b")
    assert [name, *words] == ["fedexp", "run", "-m", "seed=0", *quick, "hydra.sweep.dir='a b'"]
    assert run_command(words) == 0
    assert [path.name for path in here.iterdir() if path.name != "outputs"] == ["a b"]
    assert {path.name for path in (here / "a b").iterdir() if path.is_dir()} == {"0"}
    assert summary_of(here / "a b" / "0")["status"] == "complete"
    assert run_command(["rerun", "a b"]) == 2
    assert "RUN_DIR=a b: is a sweep's folder; name that of a run" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            "{task: [\"seed='0;ls',1\", 'trust=[os.]'], hydra: []}",
            ["fedexp", "run", "-m", "seed='0;ls',1", "hydra.sweep.dir=theirs"],
        ),
        ("{task: {a: 1}}", ["fedexp", "run", "-m", "..."]),
        ("1", ["fedexp", "run", "-m", "..."]),
    ],
)
def test_a_strangers_sweep_gives_words_and_no_trust(here, capfd, document, words):
    (here / "theirs").mkdir()
    (here / "theirs/multirun.yaml").write_text(f"hydra:\n  overrides: {document}\n")
    assert _command(capfd, "theirs") == words
