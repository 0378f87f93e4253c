"""The pictures of what studies of leakage found: real files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedexp.reporting.figures import save
from fedexp.reporting.finding import find_runs
from fedexp.reporting.leakage_images import (
    model_inversion_figure,
    sweep_classes_figure,
    sweep_reconstructions_figure,
    update_inversion_figure,
)
from fedexp.reporting.leakage_plots import (
    audit_figure,
    leakage_figures,
    roc_figure,
)
from fedexp.reporting.results import load_run
from fedexp.reporting.run_report import report_run
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import configurations
from tests.support.findings import images, study_of, texts
from tests.support.pictures import drawn, legend
from tests.support.run_folders import write_run


def inversion(n: int, channels: int, rounds: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    true = np.concatenate([images(n, channels)] * len(rounds))
    return {
        "targets": true,
        "reconstructions": images(len(true), channels, seed + 1),
        "psnr_db": np.arange(len(true)) + 10.0,
        "round": np.repeat(rounds, n),
    }


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_targets_stand_above_reconstructions_with_their_psnr(tmp_path: Path, channels: int) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    arrays = inversion(3, channels, rounds=(1, 9))
    study_of(tmp_path, arrays=arrays)
    run = load_run(tmp_path)
    figure = update_inversion_figure(run, run.leakage[0])
    assert figure is not None
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    assert len(shown) == 2 * 2 * 3
    assert {pixels.shape for pixels in shown} == {(8, 8, 3)}
    first = np.moveaxis(arrays["targets"][0], 0, -1)
    assert shown[0] == pytest.approx(np.broadcast_to(first, (8, 8, 3)))  # neither stretched nor cut
    below = np.moveaxis(arrays["reconstructions"][0], 0, -1)
    assert shown[3] == pytest.approx(np.broadcast_to(below, (8, 8, 3)))
    words = texts(figure)
    assert [word for word in words if "Round" in word] == ["Round 1", "Round 9"]
    assert [w for w in words if "dB" in w] == [f"{10 + k}.0 dB" for k in range(6)]
    assert drawn(save(figure, tmp_path / "images.png"))


@pytest.mark.usefixtures("real_pictures")
def test_of_many_images_the_first_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    study_of(tmp_path, arrays=inversion(20, 1, rounds=(1,)))
    run = load_run(tmp_path)
    figure = update_inversion_figure(run, run.leakage[0])
    assert figure is not None
    assert len(figure.axes[0].images) == 24
    with Image.open(save(figure, tmp_path / "images.png")) as picture:
        width, height = picture.size
    assert width > 1.8 * height  # twelve beside each other, two rows


def classes(seed: int) -> dict[str, np.ndarray]:
    return {
        "classes": np.array([0, 2]),
        "class_mean": images(2, 1, seed=0),
        "inverted": images(2, 1, seed=seed),
        "untrained": images(2, 1, seed=9),
    }


@pytest.mark.usefixtures("real_pictures")
def test_inverted_classes_stand_below_the_class_means(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2, class_names=("no", "?", "yes"))
    study_of(tmp_path, "model_inversion", arrays=classes(1))
    run = load_run(tmp_path)
    figure = model_inversion_figure(run, run.leakage[0])
    assert figure is not None
    assert len(figure.axes[0].images) == 6
    assert texts(figure)[-2:] == ["no", "yes"]
    assert "inverted" in texts(figure)
    assert drawn(save(figure, tmp_path / "classes.png"))


@pytest.mark.usefixtures("real_pictures")
def test_settings_of_a_sweep_stand_below_each_other(tmp_path: Path) -> None:
    for model in ("mlp", "cnn"):
        for seed in (0, 1):
            run = write_run(
                tmp_path / f"{model}-{seed}",
                seed=seed,
                rounds=1,
                n_clients=2,
                choices={"model": model},
            )
            study_of(run, "model_inversion", arrays=classes(seed + 1))
            study_of(run, "dlg", arrays=inversion(3, 1, (1,), seed=len(model) + seed))
    report_sweep([tmp_path], tmp_path)
    groups = configurations([load_run(path) for path in find_runs([tmp_path])])
    of_classes = sweep_classes_figure(groups, "")
    of_updates = sweep_reconstructions_figure(groups, "")
    assert of_classes is not None
    assert of_updates is not None
    assert len(of_classes.axes[0].images) == 2 * (1 + 2)  # means, then one seed of each setting
    assert len(of_updates.axes[0].images) == 3 * (1 + 2)  # the same targets are drawn once
    for figure in (of_classes, of_updates):
        assert {"model=cnn", "model=mlp"} <= set(texts(figure))
    first = np.asarray(of_classes.axes[0].images[2].get_array())[:, :, 0]
    assert first == pytest.approx(classes(1)["inverted"][0, 0])  # seed 0's
    assert drawn(tmp_path / "leakage_classes.png")
    assert drawn(tmp_path / "leakage_images.png")


def test_a_class_that_one_setting_lacks_stays_white(tmp_path: Path) -> None:
    for model in ("cnn", "mlp"):
        run = write_run(tmp_path / model, rounds=1, n_clients=2, choices={"model": model})
        arrays = classes(1)
        if model == "mlp":
            arrays = {name: array[1:] for name, array in arrays.items()}  # class 2 alone
        study_of(run, "model_inversion", arrays=arrays)
    groups = configurations([load_run(path) for path in find_runs([tmp_path])])
    figure = sweep_classes_figure(groups, "")
    assert figure is not None
    shown = [np.asarray(image.get_array())[:, :, 0] for image in figure.axes[0].images]
    assert (shown[4] == 1).all()
    assert shown[5] == pytest.approx(classes(1)["inverted"][1, 0])


@pytest.mark.usefixtures("real_pictures")
def test_roc_curves_share_log_axes_with_what_chance_gives(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    curve = {"fpr": np.array([0, 0.01, 0.5, 1]), "tpr": np.array([0, 0.2, 0.8, 1])}
    null = {"tpr_at_1_percent_fpr_null_low": 0.004, "tpr_at_1_percent_fpr_null_high": 0.03}
    study_of(tmp_path, "lira", arrays=curve, headline={"auc": 0.75, **null})
    study_of(tmp_path, "loss_threshold", arrays=curve, headline={"auc": 0.5})
    figure = roc_figure(load_run(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lira, loss, chance = axes.lines
    assert lira.get_xdata() == pytest.approx([1e-3, 0.01, 0.5, 1])  # zeros at the edge
    assert lira.get_ydata() == pytest.approx([1e-3, 0.2, 0.8, 1])
    assert lira.get_linestyle() != loss.get_linestyle()
    assert lira.get_color() != loss.get_color()
    assert chance.get_xdata() == pytest.approx(chance.get_ydata())
    corners = axes.collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.004, 0.03)
    assert corners[:, 0].min() < 0.01 < corners[:, 0].max() * 1.12
    assert "lira (AUC 0.750)" in legend(figure)
    assert drawn(save(figure, tmp_path / "roc.png"))


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize(("bound", "alarm"), [(2.5, True), (0.3, False)])
def test_an_audit_says_whether_the_claim_is_ruled_out(
    tmp_path: Path, bound: float, alarm: bool
) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    scores = np.random.default_rng(0).normal(size=40)
    study_of(
        tmp_path,
        "audit",
        arrays={"scores_in": scores + 2, "scores_out": np.append(scores, np.nan)},
        headline={"epsilon_lower_bound": bound, "epsilon_claimed": 1.0},
    )
    run = load_run(tmp_path)
    figure = audit_figure(run, run.leakage[0])
    assert figure is not None
    title = figure.axes[0].get_title(loc="left")
    assert title.startswith(f"epsilon is at least {bound}, claimed is 1:")
    assert ("ALARM" in title) == alarm
    assert "canaries that were out (40)" in legend(figure)
    assert drawn(save(figure, tmp_path / "audit.png"))


@pytest.mark.usefixtures("real_pictures")
def test_every_picture_lands_among_the_plots_of_the_run(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=1, n_clients=2)
    study_of(tmp_path, "dlg", arrays=inversion(2, 3, (1,)))
    study_of(tmp_path, "model_inversion", arrays=classes(1))
    study_of(tmp_path, "audit", arrays={"scores_in": np.ones(3), "scores_out": np.ones(3)})
    study_of(tmp_path, "loss_threshold", arrays={"fpr": np.array([0, 1]), "tpr": np.array([0, 1])})
    study_of(tmp_path, "silent")
    report_run(tmp_path)
    names = {"leakage_dlg", "leakage_model_inversion", "leakage_audit", "leakage_roc"}
    assert set(leakage_figures(load_run(tmp_path))) == names
    assert {path.stem for path in (tmp_path / "plots").glob("leakage*")} == names
    assert all(drawn(path) for path in (tmp_path / "plots").glob("leakage*"))
    page = (tmp_path / "report.md").read_text()
    assert all(f"![{name}](plots/{name}.png)" in page for name in names)
