"""What `fedexp run` leaves behind, and what it says meanwhile."""

import contextlib
import csv
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import termios

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from fedexp.commands.cli import run_command
from fedexp.config.build import build
from tests.support.commands import FEDEXP, fedexp, rows_of, rows_of_csv, summary_of

METRICS = {"loss", "accuracy", "balanced_accuracy", "macro_f1", "auc", "majority_baseline"}


def test_the_folder_is_complete(whole_run):
    left = {p.relative_to(whole_run).as_posix() for p in whole_run.rglob("*") if p.is_file()}
    assert left - {name for name in left if name.startswith(".hydra/")} == {
        ".lock",
        "config.yaml",
        "origin.json",
        "partition.json",
        "clients.bin",
        "metrics.csv",
        "timing.jsonl",
        "confusion_matrix.csv",
        "thresholds.csv",
        "summary.json",
        "model.safetensors",
        "fedexp.log",
        "report.md",
        "report.html",
        ".drawn.json",
        "checkpoints/best.pt",
        "checkpoints/round-000005.pt",
        "checkpoints/round-000006.pt",
        "plots/loss.png",
        "plots/accuracy.png",
        "plots/partition.png",
        "plots/confusion_matrix.png",
        "plots/curves.png",
        "plots/per_client_accuracy.png",
    }
    for picture in (whole_run / "plots").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_summary_says_what_scripts_and_readers_need(whole_run):
    summary = summary_of(whole_run)
    assert summary["status"] == "complete"
    assert summary["error"] is None
    assert summary["rounds"] == summary["rounds_planned"] == 6
    for when in ("final", "mean_last_5"):
        for part in ("validation", "test"):
            assert summary[when][part].keys() == METRICS
    assert 0.8 < summary["final"]["test"]["accuracy"] <= 1
    assert summary["final"]["test"]["majority_baseline"] == pytest.approx(0.1, abs=0.02)
    assert summary["seconds"] > 0
    assert summary["examples_per_second"] > 0
    # 10 clients, 6 rounds, float32; all 1257 training examples three times a round.
    expected_bytes = 6 * 10 * 4 * summary["parameters"]
    assert summary["bytes_up"] == summary["bytes_down"] == expected_bytes
    assert summary["examples"] == 6 * 3 * 1257
    assert summary["peak_memory_mb"] > 50
    assert "peak_memory_of_a_worker_mb" in summary  # of whoever is alive: test_memory
    assert summary["seed"] == 0
    assert re.fullmatch("[0-9a-f]{64}", summary["partition_hash"])
    assert {"python", "torch", "fedexp"} <= summary["versions"].keys()
    assert "git_commit" in summary
    assert summary["hardware"]["cores"] == os.cpu_count()
    assert summary["threads"] == 1


def test_the_summary_agrees_with_the_rows(whole_run):
    summary = summary_of(whole_run)
    accuracies = {
        round: value
        for round, scope, client, metric, value in rows_of_csv(whole_run)
        if (scope, client, metric) == ("test", "all", "accuracy")
    }
    assert list(accuracies) == [1, 2, 3, 4, 5, 6]
    assert summary["final"]["test"]["accuracy"] == accuracies[6]
    last_five = sum(accuracies[r] for r in range(2, 7)) / 5
    assert summary["mean_last_5"]["test"]["accuracy"] == pytest.approx(last_five, abs=1e-12)


def test_every_number_is_there_once_and_single_clients_are_not_in_the_table(whole_run):
    keys = [row[:4] for row in rows_of(whole_run)]
    assert len(set(keys)) == len(keys)
    assert not [row for row in rows_of_csv(whole_run) if row[2].isdigit()]
    losses = [row[:3] for row in rows_of(whole_run) if row[1::2] == ("train", "loss")]
    single = [(round, "train", str(c)) for round in range(1, 7) for c in range(10)]
    assert sorted(losses) == sorted([*single, *((r, "train", "all") for r in range(1, 7))])


def test_the_confusion_matrix_counts_the_test_part(whole_run):
    with open(whole_run / "confusion_matrix.csv", newline="") as file:
        names, *cells = csv.reader(file)
    counts = torch.tensor([[int(cell) for cell in row] for row in cells])
    summary = summary_of(whole_run)
    assert names == [str(digit) for digit in range(10)]
    assert counts.sum() == summary["examples_of"]["test"] == 360
    assert counts.trace() / 360 == pytest.approx(summary["final"]["test"]["accuracy"])


def test_the_partition_is_disjoint_and_counted(whole_run):
    document = json.loads((whole_run / "partition.json").read_text())
    indices = [i for client in document["indices"] for i in client]
    assert sorted(indices) == list(range(1257))
    assert [len(client) for client in document["indices"]] == document["sizes"]
    assert [sum(counts) for counts in document["counts"]] == document["sizes"]
    assert document["hash"] == summary_of(whole_run)["partition_hash"]


def test_the_config_is_resolved(whole_run):
    config = OmegaConf.to_container(OmegaConf.load(whole_run / "config.yaml"))
    assert "${" not in (whole_run / "config.yaml").read_text()
    assert config["cohort_size"] == 10
    assert config["training"]["epochs"] == 3
    assert config["choices"]["partition"] == "dirichlet"


def test_the_model_is_the_one_that_was_measured(whole_run):
    config = OmegaConf.to_container(OmegaConf.load(whole_run / "config.yaml"))
    built = build(config)
    built.experiment.backend.close()
    built.model.load_state_dict(load_file(whole_run / "model.safetensors"))
    test = built.dataset.test
    with torch.no_grad():
        answers = built.model.eval()(built.normalisation.x(test.as_floats().x)).argmax(dim=1)
    accuracy = (answers == test.y).double().mean().item()
    assert accuracy == summary_of(whole_run)["final"]["test"]["accuracy"]


def test_the_checkpoints_are_the_newest_two_and_the_best(whole_run):
    accuracies = [
        (value, -round)
        for round, scope, client, metric, value in rows_of_csv(whole_run)
        if (scope, client, metric) == ("validation", "all", "accuracy")
    ]
    saved = {
        path.stem: torch.load(path, weights_only=True)["round"]
        for path in (whole_run / "checkpoints").glob("*.pt")
    }
    assert saved == {"round-000005": 5, "round-000006": 6, "best": -max(accuracies)[1]}


def test_fewer_checkpoints_and_evaluations_where_asked_for(here, without_pictures):
    overrides = ["rounds=5", "eval_every=2", "checkpoint_every=3", "training.steps=1"]
    overrides += ["training.epochs=null", "hydra.run.dir=run", "quiet=true"]
    assert run_command(["run", *overrides]) == 0
    evaluated = {row[0] for row in rows_of_csv(here / "run") if row[1] == "test"}
    assert evaluated == {2, 4, 5}
    names = {path.name for path in (here / "run" / "checkpoints").glob("*.pt")}
    assert names == {"round-000003.pt", "round-000005.pt", "best.pt"}


def test_the_log_tells_the_rounds(whole_run):
    log = (whole_run / "fedexp.log").read_text()
    assert re.findall(r"round (\d+)", log) == list("123456")


def test_quiet_says_nothing(here, without_pictures, capfd):
    assert run_command(["run", "debug=fast", "quiet=true"]) == 0
    assert capfd.readouterr() == ("", "")


def test_plain_lines_when_piped(here, capfd):
    assert run_command(["run", "debug=fast", "hydra.run.dir=run"]) == 0
    said, errors = capfd.readouterr()
    assert errors == ""
    assert re.search(r"^round +1/2  validation accuracy 0\.\d{3}  \d+\.\d s$", said, re.MULTILINE)
    assert re.search(r"^round +2/2 ", said, re.MULTILINE)
    assert "Status: complete, 2 of 2 rounds" in said
    assert str(here / "run" / "report.md") in said
    assert "\r" not in said


def test_a_bar_on_a_terminal(here):
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    more = ["plots=false", "backend=in_process", "hydra.run.dir=run"]
    command = [*FEDEXP, "run", "rounds=4", *more]
    with subprocess.Popen(command, stdout=its, stderr=its, start_new_session=True) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0
    bars = [bar for bar in text.split("\r") if "/4 [" in bar]
    assert any(
        re.search(r"2/4 \[\d\d:\d\d<\d\d:\d\d,.*validation accuracy 0\.\d{3}\]", bar)
        for bar in bars
    ), bars
    assert "round    1/4" not in text
    assert "Status: complete" in text


def test_a_complete_run_is_left_alone(here, whole_run, capfd, real_pictures):
    run = shutil.copytree(whole_run, here / whole_run.name)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert run_command(["resume", run.name, "quiet=false"]) == 0
    assert f"{run.name} is complete already" in capfd.readouterr().out
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_run_folder_is_not_overwritten(here, whole_run, capfd):
    before = {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")}
    assert run_command(["run", "debug=fast", f"hydra.run.dir={whole_run}"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert f"continue it with: fedexp resume {whole_run}" in error
    assert {path: path.stat().st_mtime_ns for path in whole_run.rglob("*")} == before


def test_any_name_will_do_for_a_folder(here, without_pictures, capfd):
    name = "Üben mit 数据; it's $HOME #1"
    quoted = name.replace("'", "\\'")
    assert run_command(["run", "debug=fast", "quiet=true", f"hydra.run.dir='{quoted}'"]) == 0
    assert summary_of(here / name)["status"] == "complete"
    assert run_command(["resume", name]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "POSIX", "xx_XX.UTF-8"])
def test_any_locale_will_do(here, locale):
    env = {"LC_ALL": locale}
    done = fedexp("run", "debug=fast", "hydra.run.dir='Übung'", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert summary_of(here / "Übung")["status"] == "complete"


def test_two_runs_that_the_clock_gives_one_name(here):
    for seed in (0, 1):
        folder = "hydra.run.dir=outputs/${now:%Y}"
        assert run_command(["run", "debug=fast", "quiet=true", f"seed={seed}", folder]) == 0
    folders = sorted((here / "outputs").iterdir())
    assert [folder.name.partition("-")[2] for folder in folders] == ["", "2"]
    for seed, folder in enumerate(folders):
        assert summary_of(folder)["seed"] == seed
        assert f"seed={seed}" in (folder / ".hydra" / "overrides.yaml").read_text()


class Wanderer:
    """A rule that goes to another folder while it is built."""

    def __init__(self):
        os.makedirs("away", exist_ok=True)
        os.chdir("away")

    def init(self, d):
        return {}

    def __call__(self, updates, state, rng):
        return updates.matrix.mean(dim=0), state


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (["hydra.run.dir=mine", "seed=0"], ["mine"]),
        (["-m", "hydra.sweep.dir=mine", "seed=0,1"], ["mine/seed=0", "mine/seed=1"]),
    ],
)
def test_a_part_that_goes_elsewhere_takes_no_folder_along(here, capfd, arguments, folders):
    (here / "conf" / "aggregator").mkdir(parents=True)
    rule = f"# wanders\n_target_: {__name__}.Wanderer\n"
    (here / "conf" / "aggregator" / "wanderer.yaml").write_text(rule)
    chosen = ["aggregator=wanderer", f"trust=[{__name__}.]", "debug=fast", "plots=false"]
    with contextlib.chdir(here):
        assert run_command(["run", *arguments, *chosen, "hydra.launcher.workers=1"]) == 0
    capfd.readouterr()
    assert all(summary_of(here / folder)["status"] == "complete" for folder in folders)
    with contextlib.chdir(here):
        assert run_command(["resume", folders[0], f"trust=[{__name__}.]", "rounds=3"]) == 0
    capfd.readouterr()
    assert summary_of(here / folders[0])["rounds"] == 3
