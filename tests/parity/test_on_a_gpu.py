"""On a GPU: the CPU's figures to a rounding, and the same bits each time. Skipped without one.

python -m pytest tests/parity/test_on_a_gpu.py
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fedexp
from fedexp.backends.blocks import Blocks
from fedexp.backends.in_process import InProcess
from fedexp.commands.cli import main
from fedexp.core.devices import repeatable
from fedexp.privacy.private_blocks import OfTheDevice
from tests.parity.test_blocks import TRAINERS, assert_alike, of_model
from tests.support.composing import choices
from tests.support.workloads import start, tasks

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

GPU = torch.device("cuda")
SMALL = (
    *("rounds=2", "n_clients=8", "train_examples=240", "partition=iid", "plots=false"),
    *("training.epochs=1", "training.batch_size=8", "quiet=true", "store=none"),
)
MLP = ("model=mlp", "model.hidden=[8]")
RUNS = [
    *("aggregator=median", "aggregator=krum", "aggregator=geometric_median", "aggregator=bulyan"),
    *("aggregator=weighted_median", "aggregator=fltrust", "aggregator=flame_no_noise"),
    *("attack=sign_flip", "attack=alie", "attack=min_max", "attack=worst_of", "attack=label_flip"),
    *("pre_aggregation=nnm", "pre_aggregation=bucketing", "worker_momentum=momentum"),
    *("detector=autoencoder", "detector=pca", "detector=consistency"),
    *("algorithm=scaffold", "training.proximal=0.1", "server_optimizer=adam", "setting=local_only"),
    *("channel=secure_aggregation", "channel=top_k", "channel=quantised"),
    *("privacy=client_dp", "privacy=local_gaussian", "privacy=input_laplace"),
    *("model=cnn", "model=logistic", "training=adam", "training.precision=bfloat16"),
]
# What draws on the device draws other numbers there.
OWN_NOISE = ["privacy=dp_sgd", "privacy=dp_sgd model=small_cnn", "scenario=dp_sgd"]
STUDIES = [
    *("loss_threshold", "server_membership", "rmia", "lira", "model_inversion", "analytic"),
    "geiping leakage.geiping.attack.iterations=200",
    "idlg model=lenet leakage.idlg.attack.iterations=20",
]


@pytest.fixture(autouse=True)
def exact():
    repeatable()


@pytest.mark.parametrize("name", [name for name in TRAINERS if not name.startswith("dp")])
@pytest.mark.parametrize("choice", choices("model"))
def test_blocks_are_one_client_after_the_other(choice, name, caplog):
    work = replace(of_model(choice), device=GPU)
    trained = TRAINERS[name]
    relative = 1e-3 if choice == "resnet18" else 1e-4
    if (choice, name) == ("resnet18", "whole shards"):
        trained = replace(trained, steps=5)
    given = [replace(t, params=t.params.to(GPU)) for t in tasks(start(work))]
    one = InProcess(work).train(trained, given)
    assert_alike(Blocks(work, None).train(trained, given), one, relative)
    assert not caplog.records


@pytest.mark.parametrize("override", RUNS)
@pytest.mark.parametrize("backend", ["in_process", "blocks"])
def test_a_run_is_the_cpus_to_a_rounding(tmp_path, override, backend):
    given = small(override)
    there = run(tmp_path / "there", *given, "device=cuda", f"backend={backend}")
    here = run(tmp_path / "here", *given, "device=cpu")
    compared = there.metrics.merge(here.metrics, on=["round", "scope", "metric"])
    if "client_x" in compared:
        compared = compared[compared.client_x == compared.client_y]
    losses = compared[compared.metric == "loss"]
    assert len(losses)
    np.testing.assert_allclose(losses.value_x, losses.value_y, rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize("backend", ["in_process", "blocks"])
@pytest.mark.parametrize(
    "override",
    [
        *("aggregator=median", "model=cnn", "privacy=dp_sgd", "privacy=dp_sgd model=small_cnn"),
        *("detector=autoencoder", "attack=worst_of"),
    ],
)
def test_the_same_bits_each_time(tmp_path, override, backend):
    given = [*small(override), "device=cuda", f"backend={backend}"]
    once, again = (run(tmp_path / name, *given) for name in ("once", "again"))
    assert model(once) == model(again)


@pytest.mark.parametrize("backend", ["in_process", "blocks"])
@pytest.mark.parametrize(
    "override", ["aggregator=median", "privacy=dp_sgd", "algorithm=scaffold training.momentum=0"]
)
def test_a_run_resumed_there_has_the_same_bits(tmp_path, override, backend):
    given = [*small(override), "device=cuda", f"backend={backend}"]
    whole = run(tmp_path / "whole", *given, "rounds=4")
    run(tmp_path / "resumed", *given)
    assert main(["resume", str(tmp_path / "resumed"), "rounds=4"]) == 0
    assert model(whole) == (tmp_path / "resumed" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("override", OWN_NOISE)
def test_dp_sgd_learns_there_as_well(tmp_path, override):
    given = [*small(override), "train_examples=1200", "rounds=8", "training.epochs=5"]
    there = run(tmp_path / "there", *given, "device=cuda", "backend=blocks")
    here = run(tmp_path / "here", *given, "device=cpu")
    assert there.summary["privacy"]["epsilon"] == pytest.approx(here.summary["privacy"]["epsilon"])
    assert accuracy(there) == pytest.approx(accuracy(here), abs=0.15)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_finds_there_what_it_finds_here(tmp_path, study):
    given = [*small(f"leakage={study}"), "training.epochs=10"]
    if study in ("lira", "rmia"):
        given += [f"leakage.{study}.{'shadows' if study == 'lira' else 'references'}=4"]
    there = run(tmp_path / "there", *given, "device=cuda", "backend=in_process")
    here = run(tmp_path / "here", *given, "device=cpu", "backend=in_process")
    found, expected = (means(run.leakage) for run in (there, here))
    assert list(found.index) == list(expected.index)
    for key, value in expected.items():
        near = 3.0 if key[-1] == "psnr_db" else 0.05
        assert found[key] == pytest.approx(value, abs=near, nan_ok=True), key


def means(findings):
    findings = findings[findings.metric.isin(["auc", "psnr_db", "test_accuracy"])]
    assert len(findings)
    return findings.groupby(["study", "adversary", "subject", "round", "metric"]).value.mean()


def test_noise_has_its_standard_deviation():
    noise = OfTheDevice([1, 2], 50_000, GPU)
    drawn = torch.stack([noise([2.0, 3.0]) for _ in range(40)]).cpu().double()
    assert drawn.std(dim=(0, 2)).tolist() == pytest.approx([2.0, 3.0], rel=5e-3)
    assert abs(float(torch.corrcoef(drawn.transpose(0, 1).flatten(1))[0, 1])) < 5e-3


def small(override):
    chosen = override.split()
    return [*SMALL, *(() if "model=" in override else MLP), *chosen]


def accuracy(run):
    found = run.metrics.query("scope == 'test' and metric == 'accuracy'")
    return float(found.sort_values("round").value.iloc[-1])


def run(folder, *overrides):
    return fedexp.run([*overrides, f"hydra.run.dir={folder}"])


def model(run):
    return (run.folder / "model.safetensors").read_bytes()
