"""What the documentation shows is typed, page by page, in a reader's folder; long runs cut short.

A run stops after two rounds of one step a client, and of a sweep the first job alone is run. What
is left out is named below, with the reason. The tutorial is run as it stands by
tests/test_documented_commands.py.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.documented import PAGES, ROOT, commands
from tests.support.readers_folder import make_readers_folder

LEFT_OUT = {
    r"start\.py": "sets up an environment: the two commands themselves",
    r"cuda|scripts/gpu\.py": "wants a GPU",
    r"slurm|hydra/launcher=(ray|submitit)|backend\.address": "wants a cluster",
    r"peers/|benchmark\.py": "hours, and other people's software",
    r"data get": "wants the network",
    r"leakage_central_vs_federated(?! dataset=digits)": "long even if cut; on digits it is run",
}
NOT_HERE = "is missing and could not be downloaded"  # a collection that this machine has not
REFUSED = r"aggregator=medain|rounds=0"
"""Shown for what fedexp answers: exit code 2."""

GEIPING = ("leakage.geiping.attack.iterations=2", "leakage.geiping.exposure.examples=2")
CUT_SHORT = {
    r"experiment=(compression|leakage_central_vs_federated)": GEIPING,
    r"lira|experiment=membership$": ("leakage.lira.shadows=4",),
}
LENGTHS = r"(rounds|eval_every|training\.epochs|training\.steps)="
FEW = ("rounds=2", "eval_every=1")
WITH_COMMANDS = [page for page in PAGES if page.stem != "tutorial" and commands(page)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    before = os.getcwd()
    os.chdir(folder)
    try:
        make_readers_folder(folder)
    finally:
        os.chdir(before)
    return folder


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_runs(page, prepared, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(prepared, here, symlinks=True)
    (here / "scripts").symlink_to(ROOT / "scripts")
    failed = []
    for command in commands(page):
        said = " ".join(command.words)
        if any(re.search(which, said) for which in LEFT_OUT):
            continue
        words = [sys.executable, *typed(command)]
        done = subprocess.run(
            words, cwd=here, capture_output=True, text=True, timeout=1800, check=False
        )
        expected = 2 if re.search(REFUSED, said) else 0
        if done.returncode != expected and NOT_HERE not in done.stderr:
            failed.append(f"{words[1:]}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)


def typed(command):
    """The words after `python`, with a run cut short."""
    program, name, *rest = command.words
    rest = rest[: rest.index(">")] if ">" in rest else rest
    if program != "fedexp":
        return [name, *rest]
    if name not in ("run", "leakage") or "--dry-run" in rest:
        return ["-m", program, name, *rest]
    options = [word for word in rest if "=" not in word and word != "-m" and word[0] not in "~+"]
    own = [word for word in rest if word.startswith(("dataset.path=", "partition.path="))]
    said = [*command.overrides, *own]
    for which, lines in CUT_SHORT.items():
        said += lines if any(re.search(which, word) for word in said) else ()
    if name == "run" and "rounds=0" not in said:
        # Attacks that begin in a later round need their rounds, which are few.
        few = [word for word in said if re.match(r"attack\.first_round=|detector\.warm", word)]
        if not few:
            said = [word for word in said if not re.match(LENGTHS, word)]
            said += ["debug=fast", *FEW]
        said += ["hydra.mode=RUN", "plots=false"]
    return ["-m", program, name, *options, *said]
