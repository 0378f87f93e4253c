"""The server that watches a run, all the way from a command: resumed, from a record, refused."""

import pytest

import fedexp
from fedexp.commands.cli import run_command
from tests.support.studied_runs import finished_run

WATCHED = (
    "leakage=server_membership",
    "leakage.server_membership.permutations=40",
    "leakage.server_membership.examples=60",
    "train_examples=200",
    "model.hidden=[8]",
    "backend=in_process",
    "n_clients=5",
)
RECORDED = tuple(word for word in WATCHED if not word.startswith("leakage"))


def figures(folder):
    table = fedexp.load(folder).leakage
    return table[table["subject"] == "client known"].reset_index(drop=True)


@pytest.mark.slow
def test_a_resumed_run_has_seen_the_same(tmp_path, monkeypatch):
    whole = finished_run(tmp_path / "whole", *WATCHED)
    from fedexp.leakage.membership.watching import Watching

    note = Watching.round_done

    def stopped(self, state, record):
        if record.round == 2:
            raise KeyboardInterrupt
        note(self, state, record)

    monkeypatch.setattr(Watching, "round_done", stopped)
    folder = tmp_path / "stopped"
    command = ["run", *WATCHED, "rounds=2", "training.epochs=1", "quiet=true", "plots=false"]
    assert run_command([*command, "partition=iid", f"hydra.run.dir={folder}"]) == 130
    monkeypatch.undo()
    assert run_command(["resume", str(folder)]) == 0
    assert figures(folder).equals(figures(whole))
    columns = {"study", "adversary", "round", "metric", "value", "low", "high"}
    assert columns <= set(figures(whole).columns)
    assert set(figures(whole)["adversary"]) == {"server"}
    assert "Membership, by adversary" in (whole / "report.md").read_text()


@pytest.mark.slow
def test_a_record_of_updates_tells_the_same_of_its_rounds(tmp_path, capsys):
    run = finished_run(tmp_path / "run", *WATCHED, "record_updates=safetensors")
    watched = figures(run)
    for path in (run / "leakage" / "seen").iterdir():
        path.unlink()
    study = [word for word in WATCHED if word.startswith("leakage")]
    assert run_command(["leakage", str(run), *study, "--force"]) == 0
    assert figures(run).equals(watched)
    unwatched = finished_run(tmp_path / "unwatched", *RECORDED)
    capsys.readouterr()
    assert run_command(["leakage", str(unwatched), *study]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nobody watched this run" in line
    assert "leakage=server_membership" in line


@pytest.mark.slow
def test_what_has_no_clean_answer_is_refused_before_the_run(tmp_path, capsys):
    flipped = ("attack=label_flip", "attack.n_malicious=1", "aggregator=median")
    assert run_command(["run", *WATCHED, *flipped, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert "clients trained on changed examples" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.csv").exists()
