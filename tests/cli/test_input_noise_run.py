"""A run whose clients noise their examples: the same noise on any backend and after a resume."""

import json

import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import assert_same_bits, kill, start_to_kill, wait_for_round

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures")]

SMALL = ("rounds=5", "quiet=true", "partition=iid", "privacy=input_laplace", "store=none")


def run(folder, *overrides):
    assert run_command(["run", *SMALL, *overrides, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_killed_and_resumed_and_in_a_pool_the_bits_are_the_same(tmp_path):
    whole = run(tmp_path / "whole", "backend=in_process")
    pool = run(tmp_path / "pool", "backend=process_pool", "backend.workers=2")
    assert (pool / "checkpoints" / "best.pt").read_bytes() == (
        whole / "checkpoints" / "best.pt"
    ).read_bytes()
    killed = tmp_path / "killed"
    process = start_to_kill("run", *SMALL, "backend=in_process", f"hydra.run.dir={killed}")
    wait_for_round(process, killed, 2)
    kill(process)
    assert run_command(["resume", str(killed)]) == 0
    assert_same_bits(killed, whole)
    assert json.loads((whole / "summary.json").read_text())["privacy"]["epsilon"] == 64.0


def test_studies_take_the_true_examples_for_members(tmp_path):
    folder = run(
        tmp_path / "run",
        "backend=in_process",
        "train_examples=500",
        *("leakage=[loss_threshold,analytic]", "leakage.analytic.exposure.examples=10"),
    )
    found = {
        name: json.loads((folder / "leakage" / name / "findings.json").read_text())
        for name in ("loss_threshold", "analytic")
    }
    assert found["loss_threshold"]["headline"]["n_members"] == 500
    # The update gives back the noised image exactly, and that is not the client's.
    assert found["analytic"]["headline"]["psnr_db"] < 15
