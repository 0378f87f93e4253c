"""Every command that README and documentation show can be typed: all that it names is there.

`fedexp run` and `fedexp leakage` are composed as they stand. What runs on embedded data is also
run, in two rounds, by a slow test, and the tutorial as a whole; tests/test_documented_pages_run.py
runs the others, where the real collections are.
"""

import contextlib
import io
import re
import subprocess
import sys

import pytest

from fedexp.commands.cli import main
from tests.support.commands import fedexp
from tests.support.composing import config_for
from tests.support.documented import PAGES, ROOT, commands

SHOWN = list({command.words: command for page in PAGES for command in commands(page)}.values())
COMPOSED = [command for command in SHOWN if command.words[1] in ("run", "leakage")]
OTHERS = [command for command in SHOWN if command not in COMPOSED]
MISTAKES = ("aggregator=medain",)  # shown for what fedexp answers
REFUSED = (*MISTAKES, "rounds=0")

# How many sites there are, the reader's data would say.
SITES = {"experiment=hospital_verdict": ("partition.n_clients=4",)}


def on_embedded_data(command):
    said = " ".join(command.words)
    return (
        command.words[1] == "run"
        and not re.search(r"dataset=|experiment=|outputs/|backend=ray|launcher|\.npz|cuda", said)
        and "-m" not in command.words
        and not set(REFUSED) & set(command.words)
    )


def test_commands_are_found():
    assert len(COMPOSED) > 50
    assert {"list", "resume", "detect", "store", "data"} <= {c.words[1] for c in OTHERS}
    assert sum(map(on_embedded_data, COMPOSED)) > 8


@pytest.mark.documents
@pytest.mark.parametrize("command", COMPOSED, ids=str)
def test_what_is_chosen_is_there(command):
    if "hydra/launcher=ray" in command.words:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", exc_type=ImportError)
    if set(MISTAKES) & set(command.words):
        with pytest.raises(Exception, match="medain"):
            config_for(*command.overrides)
    else:
        config_for(*command.overrides, *SITES.get(" ".join(command.words[2:3]), ()))


@pytest.mark.documents
@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_commands_options_and_scripts_are_there(command):
    program, name, *rest = command.words
    options = [word for word in rest if word.startswith("--")]
    if program == "fedexp":
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main(["--help"])  # with what every command takes
            main([name, *(word for word in rest[:1] if word in ("fit", "scan", "get")), "--help"])
        known = shown.getvalue()
    else:
        known = (ROOT / name).read_text()
    assert known
    assert all(option in known for option in options), options


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMPOSED if on_embedded_data(c)], ids=str)
def test_what_needs_no_files_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fedexp(*command.words[1:], "debug=fast", "plots=false", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path):
    for command in commands(ROOT / "docs" / "tutorial.md"):
        words = [sys.executable, "-m", "fedexp", *command.words[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        expected = 2 if set(MISTAKES) & set(command.words) else 0
        assert done.returncode == expected, (command, done.stderr)
