"""How deep the door is, and how often it builds."""

import os
import sys

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

import fedexp
from fedexp.commands.cli import run_command
from fedexp.config import build as building
from fedexp.training import sgd
from fedexp.training.written_out import Chain
from tests.support.commands import summary_of

pytestmark = pytest.mark.usefixtures("without_pictures")
PACKAGE = os.path.dirname(fedexp.__file__) + os.sep
SMALL = ("rounds=1", "training.epochs=1", "quiet=true", "hydra.run.dir=run")
MOST_CALLS = 12


def ours_above(frame):
    """Which functions of ours are on the stack, the outermost first."""
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            found.append(f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_qualname}")
        frame = frame.f_back
    return found[::-1]


@pytest.mark.parametrize("by", [True, False], ids=["by hand", "by autograd"])
def test_from_the_command_to_the_gradient(here, monkeypatch, by):
    stacks = []

    def noted(function):
        def noting(*arguments, **options):
            stacks.append(ours_above(sys._getframe(1)))
            return function(*arguments, **options)

        return noting

    monkeypatch.setattr(torch.autograd, "grad", noted(torch.autograd.grad))
    monkeypatch.setattr(sgd, "can_be_trained", lambda *_: by)
    monkeypatch.setattr(Chain, "backward", noted(Chain.backward))
    assert run_command(["run", *SMALL]) == 0
    assert stacks
    deepest = max(stacks, key=len)
    assert deepest[0] == "commands/cli.py:main"
    assert len(deepest) <= MOST_CALLS, "\n".join(deepest)


@pytest.fixture
def builds(monkeypatch):
    """Grows with every call of the builder, whoever makes it, under whatever name it is known."""
    calls, build = [], building.build

    def counting(*arguments, **options):
        calls.append(arguments)
        return build(*arguments, **options)

    for module in list(sys.modules.values()):
        if getattr(module, "build", None) is build:
            monkeypatch.setattr(module, "build", counting)
    return calls


@pytest.mark.parametrize("leakage", ["none", "loss_threshold"])
def test_a_run_is_built_once(here, builds, leakage):
    import fedexp.commands.execution
    import fedexp.leakage.victim  # noqa: F401 - so that the fixture of a lone test sees them

    assert run_command(["run", *SMALL, f"leakage={leakage}"]) == 0
    assert len(builds) == 1
    assert (here / "run" / "leakage" / leakage).exists() == (leakage != "none")


def test_a_sweep_and_a_resumed_run_are_built_once_a_job(here, builds):
    job = ["training.epochs=1", "quiet=true", "rounds=1", "hydra.sweep.dir=sweep"]
    job.append("hydra/launcher=basic")  # in this process, where builds are counted
    assert run_command(["run", "-m", "seed=0,1", *job, "leakage=loss_threshold"]) == 0
    assert len(builds) == 2
    (here / "sweep" / "seed=0" / "summary.json").unlink()
    assert run_command(["resume", "sweep/seed=0"]) == 0
    assert len(builds) == 3
    assert summary_of(here / "sweep" / "seed=0")["status"] == "complete"


def test_a_study_at_the_end_of_a_run_finds_what_it_finds_later(here):
    study = "leakage=loss_threshold"
    assert run_command(["run", *SMALL, study]) == 0
    table = here / "run" / "leakage" / "loss_threshold" / "figures.csv"
    at_the_end = table.read_bytes()
    assert run_command(["leakage", "run", study, "--force"]) == 0
    assert table.read_bytes() == at_the_end


def test_what_was_built_for_a_run_that_never_started_is_given_back(here, capfd, monkeypatch):
    from fedexp.backends.auto import Auto
    from fedexp.commands.run import Gatekeeper

    closed = []
    monkeypatch.setattr(Auto, "close", lambda self: closed.append(self))
    monkeypatch.setattr(
        "hydra.core.utils.configure_log",
        lambda *a, **k: (_ for _ in ()).throw(OSError(5, "broken")),
    )
    assert run_command(["run", *SMALL]) == 2
    assert "broken" in capfd.readouterr().err
    assert len(closed) == 1
    assert Gatekeeper.admitted is None


def test_a_single_run_is_composed_once(here, monkeypatch):
    composed, compose = [], ConfigLoaderImpl.load_configuration

    def counting(self, *arguments):
        composed.append(arguments)
        return compose(self, *arguments)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counting)
    assert run_command(["run", *SMALL]) == 0
    assert len(composed) == 1
    assert OmegaConf.load(here / "run/.hydra/hydra.yaml").hydra.mode == "RUN"
