"""Rows instead of images, several labels, files that are mapped: from a config to figures."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fedexp.commands.execution import run
from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.data.folder import data_folder
from fedexp.data.loader import load
from fedexp.training import steps
from tests.support.own_data import (
    FINDINGS,
    NOWHERE,
    TABLE,
    Findings,
    mapped,
    own_config,
    trained,
    value_of,
)

IN_PROCESS = "backend=in_process"
LAST = "eval_every=100"  # the last round is always evaluated


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_a_table_is_learned(model):
    _, records, _ = trained(own_config(TABLE, f"model={model}", "rounds=10", LAST, IN_PROCESS))
    assert value_of(records[-1], "test", "accuracy") > 0.93
    assert value_of(records[-1], "test", "auc") > 0.97


@pytest.mark.parametrize(
    "more",
    [
        ("privacy=dp_sgd", "rounds=3"),
        ("attack=sign_flip", "attack.n_malicious=1", "aggregator=median", "rounds=6"),
        ("attack=label_flip", "attack.n_malicious=1", "aggregator=trimmed_mean"),
        ("setting=centralised",),
        ("partition=classes", "partition.classes_per_client=1"),
        ("aggregator=fltrust", "aggregator.root_examples=20"),
    ],
    ids=lambda more: more[0],
)
def test_a_table_goes_through_the_parts(more):
    _, records, _ = trained(own_config(TABLE, "model=mlp", IN_PROCESS, *more))
    assert value_of(records[-1], "test", "accuracy") > 0.6
    assert np.isfinite(value_of(records[-1], "test", "loss"))


@pytest.mark.parametrize(
    "dataset", [(TABLE,), (FINDINGS, "task=multilabel")], ids=["table", "several labels"]
)
def test_a_pool_gives_the_bits_of_one_process(dataset):
    node, *more = dataset
    alone, *_ = trained(own_config(node, "model=mlp", IN_PROCESS, *more))
    pool = ("backend=process_pool", "backend.workers=1")
    state, *_ = trained(own_config(node, "model=mlp", *pool, *more))
    assert torch.equal(state.params, alone.params)


REFUSED = {
    "a convolution on rows": (TABLE, ["model=cnn"], "input_shape"),
    "a residual network on rows": (
        TABLE,
        ["model=resnet18"],
        "needs images (channels",
    ),
    "scanners of rows": (
        TABLE,
        ["partition=feature"],
        "partition.shift=mixed: is a scanner's, for images [channels, height, width], and these "
        "examples are [30]",
    ),
    "a trigger in rows": (
        TABLE,
        ["attack=backdoor", "attack.n_malicious=1"],
        "attack.trigger_size=3: stamps images [channels, height, width], and these examples are "
        "[30]",
    ),
    "inversion of rows": (
        TABLE,
        ["leakage=analytic"],
        "dataset=table: this study of leakage is about",
    ),
    "pictures of rows": (
        TABLE,
        ["leakage=model_inversion"],
        "dataset=table: this study of leakage is about images",
    ),
    "one class of several labels": (FINDINGS, [], "task=multiclass: needs one class an example"),
    "several labels of one class": (TABLE, ["task=multilabel"], "task=multilabel: needs labels"),
    "another objective": (FINDINGS, ["task=multilabel", "objective=recall"], "exact_match"),
    "an objective of another task": (TABLE, ["objective=exact_match"], "objective=exact_match"),
} | {
    f"{partition} of several labels": (
        FINDINGS,
        ["task=multilabel", f"partition={partition}"],
        f"partition={partition}: needs one class an example, and these examples have any number "
        "of labels; use partition=iid or partition=quantity",
    )
    for partition in ("classes", "dirichlet", "dirichlet_balanced", "shards")
}
REFUSED |= {
    f"{attack} of several labels": (
        FINDINGS,
        ["task=multilabel", f"attack={attack}", "attack.n_malicious=1"],
        f"attack={attack}: replaces an example's class by another",
    )
    for attack in ("label_flip", "noisy_labels", "backdoor")
}
REFUSED |= {
    f"{study} of several labels": (
        FINDINGS,
        ["task=multilabel", f"leakage={study}"],
        "dataset=findings: this study of leakage needs one class an example",
    )
    for study in ("loss_threshold", "lira")
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line_before_any_training(case):
    node, overrides, message = REFUSED[case]
    model = [] if any(o.startswith("model=") for o in overrides) else ["model=mlp"]
    with pytest.raises(InputError) as caught:
        build(own_config(node, *model, *overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_labels_are_learned_as_well_as_by_one_regression_a_label():
    config = own_config(
        FINDINGS, "task=multilabel", "model=logistic", "rounds=40", LAST, IN_PROCESS
    )
    _, records, built = trained(config)
    found = {m: value_of(records[-1], "test", m) for m in built.task.metrics}
    data = load(Findings("findings", [12], 3), NOWHERE)
    accuracies = [
        LogisticRegression()
        .fit(data.train.x.numpy(), data.train.y[:, c].numpy())
        .score(data.test.x.numpy(), data.test.y[:, c].numpy())
        for c in range(3)
    ]
    assert found["accuracy"] == pytest.approx(np.mean(accuracies), abs=0.06)
    assert found["accuracy"] > 0.85
    assert found["auc"] > 0.9
    assert found["exact_match"] < found["accuracy"]


@pytest.mark.parametrize(
    "more",
    [
        ("privacy=dp_sgd",),
        ("privacy=client_dp", "privacy.delta=0.01"),
        ("partition=quantity",),
        ("attack=sign_flip", "attack.n_malicious=1", "aggregator=median"),
        ("setting=local_only",),
        ("objective=exact_match",),
    ],
    ids=lambda more: more[0],
)
def test_several_labels_go_through_the_parts(more):
    config = own_config(FINDINGS, "task=multilabel", "model=mlp", IN_PROCESS, *more)
    _, records, _ = trained(config)
    (who,) = {row.client for row in records[-1].metrics if row.client in ("all", "mean")} - (
        {"all"} if more[0] == "setting=local_only" else {"mean"}
    )
    assert np.isfinite(value_of(records[-1], "test", "loss", who))


def test_the_gradients_of_dp_sgd_are_those_of_several_labels():
    """Without noise and with a bound that nothing reaches, it is ordinary training's mean."""
    free = ("privacy=dp_sgd", "privacy.noise_multiplier=0", "privacy.clip_norm=1000")
    free += ("privacy.allow_no_noise=true",)
    whole = ("training.batch_size=null", "rounds=1", "task=multilabel", "model=mlp", IN_PROCESS)
    plain, *_ = trained(own_config(FINDINGS, *whole))
    private, *_ = trained(own_config(FINDINGS, *free, *whole))
    torch.testing.assert_close(plain.params, private.params, rtol=1e-4, atol=1e-6)


def test_a_run_of_several_labels_is_recorded_and_reported(tmp_path):
    config = own_config(FINDINGS, "task=multilabel", "model=mlp", "quiet=true", IN_PROCESS)
    summary, text = run(config, tmp_path, resume=False)
    assert summary["status"] == "complete"
    assert {"accuracy", "exact_match", "auc"} <= set(summary["final"]["test"])
    assert 0.4 < summary["majority_baseline"]["test"] < 1
    assert "exact match" in text
    assert not (tmp_path / "confusion_matrix.csv").exists()
    assert (tmp_path / "partition.json").exists()


@pytest.mark.parametrize("backend", [(IN_PROCESS,), ("backend=process_pool", "backend.workers=1")])
@pytest.mark.parametrize("how", ["torch", "numpy"])
def test_a_mapped_file_gives_the_bits_of_one_in_memory(tmp_path, how, backend):
    file = tmp_path / "images.bin"
    np.random.default_rng(0).integers(0, 256, 60 * 16, dtype=np.uint8).tofile(file)
    expected, *_ = trained(own_config(mapped(file, "memory"), "model=mlp", IN_PROCESS))
    state, _, built = trained(own_config(mapped(file, how), "model=mlp", *backend))
    assert torch.equal(state.params, expected.params)
    assert built.dataset.train.x.dtype == torch.uint8


def test_data_are_there_once_and_as_bytes():
    built = build(own_config({**TABLE}, "model=mlp", IN_PROCESS))
    kept = load(built_loader(), data_folder(None))
    assert built.dataset.test.x.data_ptr() == kept.test.x.data_ptr()
    assert built.dataset.train.x.data_ptr() == kept.train.x.data_ptr()
    assert built.dataset.has_sites
    assert built.dataset.train.site.tolist() == kept.train.site.tolist()
    assert not built.dataset.has_subjects


def built_loader():
    from tests.support.own_data import Table

    return Table("table", [30], 2)


def test_sites_and_subjects_survive_everything_that_a_build_does():
    config = own_config(
        TABLE,
        "model=mlp",
        "train_examples=100",
        "attack=label_flip",
        "attack.n_malicious=1",
        "aggregator=fltrust",
        "aggregator.root_examples=20",
        IN_PROCESS,
    )
    built = build(config)
    whole = load(built_loader(), NOWHERE).train
    site_of = {
        row.numpy().tobytes(): int(site) for row, site in zip(whole.x, whole.site, strict=True)
    }
    for part in (built.dataset.train, built.reserve):
        assert [site_of[row.numpy().tobytes()] for row in part.x] == part.site.tolist()


@pytest.mark.parametrize("most", [1, 150, 4096])
def test_how_many_examples_are_made_ready_at_once_changes_no_bit(monkeypatch, most):
    config = own_config(TABLE, "model=mlp", "training.batch_size=7", "n_clients=1", IN_PROCESS)
    expected, *_ = trained(config)
    monkeypatch.setattr(steps, "MOST_GATHERED", most)
    state, *_ = trained(config)
    assert torch.equal(state.params, expected.params)


STUDIES = {
    "loss_threshold of rows": (TABLE, ["leakage=loss_threshold", "train_examples=150"]),
    "canaries among rows": (TABLE, ["leakage=audit", "privacy=dp_sgd", "rounds=1"]),
    "canary clients of several labels": (
        FINDINGS,
        ["leakage=audit", "privacy=client_dp", "privacy.delta=0.01", "task=multilabel"],
    ),
}
SMALL_AUDIT = ("leakage.audit.canaries=20", "leakage.audit.guesses=[0.4]")


@pytest.mark.parametrize("case", STUDIES)
def test_studies_that_need_no_image_are_carried_out(case, tmp_path):
    node, overrides = STUDIES[case]
    small = SMALL_AUDIT if "leakage=audit" in overrides else ()
    more = (*overrides, *small, "model=mlp", "quiet=true", "plots=false", IN_PROCESS)
    run(own_config(node, *more), tmp_path, resume=False)
    assert list(tmp_path.glob("leakage/*/figures.csv"))


def test_canary_examples_need_one_class(tmp_path):
    more = ("leakage=audit", *SMALL_AUDIT, "privacy=dp_sgd", "task=multilabel", "model=mlp")
    config = own_config(FINDINGS, *more, "quiet=true", "plots=false", IN_PROCESS)
    with pytest.raises(InputError, match="needs one class an example"):
        run(config, tmp_path, resume=False)
