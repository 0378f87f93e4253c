"""fedexp.run and fedexp.load: the frames, the refusals, and a process left as it was."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import fedexp
from fedexp.config.folders import conf_folder
from fedexp.config.schema import register
from tests.support.commands import rows_of, summary_of

SMALL = ("rounds=2", "training.epochs=1", "plots=false", "quiet=true")
DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    attack = ("attack=sign_flip", "attack.n_malicious=2", "aggregator=median")
    return fedexp.run([*SMALL, *attack, "leakage=loss_threshold", f"hydra.run.dir={folder}"])


def test_what_is_public():
    assert set(fedexp.__all__) <= set(dir(fedexp))
    for name in fedexp.__all__:
        assert getattr(fedexp, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        fedexp.lode  # noqa: B018
    package = Path(fedexp.__file__).parent
    assert (package / "py.typed").exists()


def test_a_run_knows_its_folder_config_and_summary(run):
    assert run.folder.is_absolute()
    assert run.config["choices"]["aggregator"] == "median"
    assert run.config["rounds"] == 2
    assert run.summary == summary_of(run.folder)
    assert run.summary["status"] == "complete"


def test_metrics_are_those_of_the_files_and_the_estimates(run):
    assert list(run.metrics.columns) == ["round", "scope", "client", "metric", "value"]
    estimated = run.metrics["metric"] == "own_mix_accuracy"
    read = run.metrics[~estimated].astype(object).where(run.metrics["value"].notna(), None)
    assert set(read.itertuples(index=False, name=None)) == set(rows_of(run.folder))
    assert len(read) == len(rows_of(run.folder))
    assert list(run.metrics["round"]) == sorted(run.metrics["round"])
    recalls = run.metrics.query("scope == 'recall' and round == 2").set_index("metric")["value"]
    counts = run.clients.filter(regex="^count_")
    last = run.metrics[estimated].query("round == 2").set_index("client")["value"]
    for client, of_client in enumerate(counts.to_numpy()):
        by_hand = sum(n * recalls[str(c)] for c, n in enumerate(of_client)) / of_client.sum()
        assert last[str(client)] == pytest.approx(by_hand)
    assert run.metrics is run.metrics  # read once


def test_one_row_a_client(run):
    clients = run.clients
    assert list(clients["client"]) == list(range(10))
    assert clients["examples"].sum() == 1257
    assert clients.filter(regex="^count_").sum(axis=1).equals(clients["examples"])
    assert set(clients.index[clients["malicious"]]) == set(run.summary["malicious_clients"])
    last = run.metrics.query("round == 2 and scope == 'test' and metric == 'own_mix_accuracy'")
    expected = dict(zip(last["client"].astype(int), last["value"], strict=True))
    assert dict(zip(clients["client"], clients["test_own_mix_accuracy"], strict=True)) == expected


def test_leakage_is_tidy(run):
    columns = ("study", "subject", "adversary", "round", "target", "metric", "value", "low", "high")
    assert tuple(run.leakage.columns) == columns
    headline = run.leakage.query("subject == 'all' and metric == 'auc'")
    assert headline["study"].tolist() == ["loss_threshold"]
    assert headline["value"].item() == run.summary["leakage"]["loss_threshold"]["auc"]
    assert headline["round"].isna().all()
    assert headline["adversary"].item() == "outsider"
    figures = run.leakage.query("subject == 'loss threshold' and metric == 'auc'")
    assert figures["round"].tolist() == [2]
    assert (figures["low"] < figures["value"]).all()
    assert (figures["value"] < figures["high"]).all()


def test_what_was_never_written_is_empty_and_has_its_columns(here):
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("seed: 0\n")
    run = fedexp.load("run")
    assert run.metrics.empty
    assert run.leakage.empty
    assert list(run.clients.columns) == ["client", "examples", "malicious"]
    assert run.clients.empty


def test_load_gives_a_run_or_a_sweep(here, run):
    assert fedexp.load(run.folder).metrics.equals(run.metrics)
    for seed in (1, 10, 2):
        fedexp.run([*SMALL, f"seed={seed}", f"hydra.run.dir=several/{seed}"])
    sweep = fedexp.load("several")
    assert isinstance(sweep, fedexp.Sweep)
    assert [r.config["seed"] for r in sweep.runs] == [1, 2, 10]
    assert sweep.table["seed"].tolist() == [1, 2, 10]
    expected = [r.summary["final"]["test"]["accuracy"] for r in sweep.runs]
    assert sweep.table["test_accuracy"].tolist() == expected
    for wrong in ("nowhere", str(here / "empty")):
        (here / "empty").mkdir(exist_ok=True)
        with pytest.raises(fedexp.InputError, match="path="):
            fedexp.load(wrong)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["rounds=0"], "rounds=0: must be a whole number, 1 or above"),
        (["aggregator=meen"], "aggregator=meen: did you mean mean"),
        (["agregator=mean"], "agregator=mean: there is no such key; did you mean aggregator"),
        (["rounds"], "rounds"),
        (["-m"], "must look like key=value"),
        ("rounds=3", "give a list"),
        (["seed=0,1"], "that is a sweep; start it with: fedexp run -m seed=0,1"),
        (["experiment=hospital_collaboration"], "fedexp run -m experiment=hospital_collaboration"),
        (["aggregator=trimmed_mean", "assumed_malicious=5"], "aggregator.assumed_malicious=5"),
        ({"rounds": 3}, "give a list"),
        (3, "give a list"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing(here, overrides, expected):
    with pytest.raises(fedexp.InputError, match=re.escape(expected)):
        fedexp.run(overrides)
    assert list(here.iterdir()) == []


def test_a_run_is_not_overwritten(here, run):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with pytest.raises(fedexp.InputError, match="holds a run already"):
        fedexp.run([*SMALL, f"hydra.run.dir={run.folder}"])
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_the_same_bits_as_on_the_command_line(here, run):
    from tests.support.commands import fedexp as command

    overrides = run.config["overrides"]
    done = command("run", *overrides, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    for name in ("metrics.csv", "model.safetensors", "config.yaml"):
        assert (here / "run" / name).read_bytes() == (run.folder / name).read_bytes()


def test_workers_do_not_start_the_callers_script_again(here):
    pool = ["backend=process_pool", "backend.workers=2"]
    overrides = [*SMALL, "n_clients=4", *pool]
    script = here / "script.py"
    script.write_text(f"import fedexp\nprint(fedexp.run({overrides!r}).folder)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert len(list((here / "outputs").glob("*/*/config.yaml"))) == 1


def test_a_store_that_is_named_is_used(here):
    one, two = (fedexp.run(["rounds=1", *SMALL[1:], "store=kept"]) for _ in range(2))
    assert "rounds_from_store" not in one.summary
    assert two.summary["rounds_from_store"] == 1


def test_data_that_have_changed_since_the_last_run_are_loaded_anew(here):
    table = ["dataset=table", "dataset.path=d.csv", "dataset.label=ill", "n_clients=2"]
    for number in (0, 1):
        rows = [f"{k % 7},{(k + number) % 2}" for k in range(60)]
        (here / "d.csv").write_text("\n".join(["a,ill", *rows, ""]))
        fedexp.run([*table, "rounds=1", *SMALL[1:], f"hydra.run.dir={number}"])
    before, after = (json.loads((here / n / "origin.json").read_text()) for n in "01")
    assert before["data"] != after["data"]


def test_several_runs_in_one_process_each_get_a_folder(here):
    folders = {fedexp.run(["rounds=1", *SMALL[1:]]).folder for _ in range(2)}
    assert len(folders) == 2
    assert all(folder.is_relative_to(here / "outputs") for folder in folders)


def test_the_process_is_left_as_it_was(here):
    register()
    mine = logging.getLogger("fedexp")
    handler, root = logging.NullHandler(), logging.getLogger()
    mine.addHandler(handler)
    before = (mine.handlers[:], mine.level, mine.propagate, root.handlers[:], root.level)
    torch.set_num_threads(2)
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            fedexp.run(["rounds=1", *SMALL[1:]])
            assert compose("config", overrides=["rounds=7"]).rounds == 7  # the caller's own Hydra
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
        mine.removeHandler(handler)
    after = (mine.handlers, mine.level, mine.propagate, root.handlers, root.level)
    assert after == (before[0][:-1], *before[1:])


def test_the_scripts_of_the_document_run(here, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    scripts = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(scripts) == 2
    assert len([line for line in scripts[0].splitlines() if line.strip()]) <= 10
    for script in scripts:
        exec(compile(script, str(DOCUMENT), "exec"), {})
    assert (here / "outputs" / "median.png").read_bytes().startswith(b"\x89PNG")


def test_rules_on_plain_arrays():
    from fedexp.aggregation.krum import Krum
    from fedexp.aggregation.mean import Mean

    rows = np.array([[0.0, 1.0], [0.1, 1.0], [0.2, 1.0], [9.0, 9.0], [0.1, 1.1]], np.float32)
    assert fedexp.aggregate(Krum(assumed_malicious=1, selected=1), rows)[0] < 1
    mean = fedexp.aggregate(Mean("uniform"), torch.from_numpy(rows))
    assert isinstance(mean, torch.Tensor)
    torch.testing.assert_close(mean, torch.from_numpy(rows).mean(0))
    weighed = fedexp.aggregate(Mean("examples"), rows, examples=[1, 0, 0, 1, 0])
    assert weighed.tolist() == [4.5, 5.0]
    own = fedexp.aggregate(lambda r: r.max(axis=0), rows)
    assert own.tolist() == [9.0, 9.0]
    assert pd.Series(fedexp.aggregate(lambda r: torch.as_tensor(r)[0], rows)).tolist() == [0, 1]
    with pytest.raises(fedexp.InputError, match="assumed_malicious=2"):
        fedexp.aggregate(Krum(assumed_malicious=2, selected=1), rows)


def test_what_is_no_path_is_named():
    with pytest.raises(fedexp.InputError, match="path=3: must be the path of a folder"):
        fedexp.load(3)
