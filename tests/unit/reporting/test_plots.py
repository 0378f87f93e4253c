"""Every picture is drawn, is not blank and says what it should, also when pieces are missing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedexp.core.thresholds import thresholds
from fedexp.reporting.comparison import MOST_CURVES, comparison_figure
from fedexp.reporting.curves_plot import curves_figure
from fedexp.reporting.figures import new_figure, save
from fedexp.reporting.heatmaps import confusion_figure
from fedexp.reporting.paper import for_paper
from fedexp.reporting.partition_plots import partition_figure
from fedexp.reporting.plots import (
    accuracy_figure,
    client_accuracy_figure,
    loss_figure,
    write_run_plots,
)
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.tables import configurations, summary_table
from fedexp.run_folder.thresholds import write_thresholds
from tests.support.pictures import cells, drawn, legend, written_at
from tests.support.run_folders import write_failed, write_run

TISSUES = ("adipose", "debris", "cancer-associated stroma $x$", "mucus")


def with_names(run: Path, names: list[str]) -> Run:
    """The run, with names for its clients."""
    document = json.loads((run / "partition.json").read_text())
    (run / "partition.json").write_text(json.dumps({**document, "names": names}))
    return load_run(run)


def test_sites_have_their_names_at_the_axes(tmp_path: Path) -> None:
    names = ["north", "south ward", "Klinik Ü"]
    run = with_names(write_run(tmp_path / "run", n_clients=3), names)
    left, _ = partition_figure(run).axes
    assert written_at(left.yaxis) == names
    assert left.get_ylabel() == "Client"
    (bars,) = client_accuracy_figure(run).axes
    best_first = run.per_client("test", "own_mix_accuracy").sort_values(ascending=False).index
    assert written_at(bars.xaxis) == [names[k] for k in best_first]
    assert "number" not in bars.get_xlabel()


@pytest.mark.usefixtures("real_pictures")
def test_long_names_of_sites_leave_bars_their_height(tmp_path: Path) -> None:
    names = [f"St. Mary General Hospital of the {side}" for side in ("North", "South")] + ["C"]
    run = with_names(write_run(tmp_path / "run", n_clients=3, rounds=1), names)
    figure = client_accuracy_figure(run)
    save(figure, tmp_path / "bars.png")
    (bars,) = figure.axes
    assert sorted(written_at(bars.xaxis)) == [
        "C",
        "St. Mary General…North",
        "St. Mary General…South",
    ]
    assert bars.get_window_extent().height > 2.2 * figure.dpi
    assert bars.yaxis.label.get_window_extent().y1 < bars.get_window_extent().y1


def test_without_names_clients_have_numbers(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", n_clients=3))
    left, _ = partition_figure(run).axes
    assert written_at(left.yaxis) == ["0", "1", "2"]
    assert left.get_ylabel() == "Client number"


def test_few_classes_are_told_apart_and_of_many_the_best_and_the_worst(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for classes in (2, 4, 10):
        names = [f"c{k}" for k in range(classes)]
        folder = write_run(tmp_path / str(classes), n_clients=2, rounds=1, class_names=names)
        y = rng.integers(0, classes, 300)
        p = rng.dirichlet(np.ones(classes), 300)
        write_thresholds(folder, thresholds(p, y))
        figure = curves_figure(load_run(folder))
        assert figure is not None
        named = [line for line in legend(figure).splitlines() if line.startswith("class c")]
        assert len(named) == {2: 1, 4: 4, 10: 2}[classes]
        assert ("mean of 10 classes" in legend(figure)) == (classes == 10)
        assert [len(axes.lines) for axes in figure.axes[:2]] == [
            {2: 2, 4: 5, 10: 14}[classes],
            {2: 1, 4: 4, 10: 13}[classes],
        ]
        assert figure.axes[2].get_title(loc="left").startswith("Calibration (error ")


def test_classes_whose_long_names_begin_alike_are_all_drawn_and_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = [f"carcinoma of the left lung, stage {k}" for k in range(6)]
    folder = write_run(tmp_path / "run", n_clients=2, rounds=1, class_names=names)
    y, p = rng.integers(0, 6, 300), rng.dirichlet(np.ones(6), 300)
    write_thresholds(folder, thresholds(p, y))
    run = load_run(folder)
    figure = curves_figure(run)
    assert figure is not None
    assert "mean of 6 classes" in legend(figure)
    rows = written_at(confusion_figure(run).axes[0].yaxis)
    assert rows == [f"carcinoma of the lef…{k}" for k in range(6)]


def test_without_one_model_for_all_there_are_no_curves_of_it(tmp_path: Path) -> None:
    assert curves_figure(load_run(write_run(tmp_path / "r", n_clients=2, rounds=1))) is None


def test_bars_of_one_length_are_a_sentence(tmp_path: Path) -> None:
    for n_clients in (3, 60):
        folder = write_run(tmp_path / str(n_clients), n_clients=n_clients, rounds=1)
        document = json.loads((folder / "partition.json").read_text())
        counts = [[k % 2, *[1] * 9] for k in range(n_clients)]  # 9 or 10 images each
        path = folder / "partition.json"
        path.write_text(json.dumps({**document, "counts": counts}))
        figure = partition_figure(load_run(folder))
        said = figure.texts[1].get_text().replace("\n", " ")
        assert said.endswith("Every client holds 9 or 10 examples.")
        assert len(partition_figure(load_run(folder)).axes) == (1 if n_clients == 3 else 2)
        path.write_text(json.dumps({**document, "counts": [[0, 2, *[1] * 8], *counts[1:]]}))
        assert len(partition_figure(load_run(folder)).axes) == len(figure.axes)
        path.write_text(
            json.dumps({**document, "counts": [[0, 3, *[1] * 8], *counts[2:], counts[0]]})
        )
        assert len(partition_figure(load_run(folder)).axes) == len(figure.axes) + 1


def test_a_name_that_no_font_has_is_a_number(tmp_path: Path) -> None:
    run = with_names(write_run(tmp_path / "run", n_clients=2), ["a", "\U00012000"])
    assert written_at(partition_figure(run).axes[0].yaxis) == ["a", "1"]


@pytest.mark.usefixtures("real_pictures")
def test_an_empty_figure_does_not_count_as_drawn(tmp_path: Path) -> None:
    assert not drawn(save(new_figure(5, 4, ""), tmp_path / "empty.png"))


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize(
    "options",
    [
        {"rounds": 1, "n_clients": 1, "setting": "centralised"},
        {"setting": "local_only", "n_clients": 5, "auc": False, "validation": False},
        {"setting": "local_only", "n_clients": 70, "rounds": 1},
        {"class_names": TISSUES, "n_clients": 41, "eval_every": 7},
    ],
    ids=["one round", "nothing but test", "many clients alone", "long names"],
)
def test_all_pictures_of_a_run(tmp_path: Path, options: dict) -> None:
    run = load_run(write_run(tmp_path / "r", **({"rounds": 8} | options)))
    written = write_run_plots(run, run.path / "plots")
    expected = {"loss", "accuracy", "partition", "confusion_matrix", "per_client_accuracy"}
    if options.get("setting") == "local_only":
        expected.remove("confusion_matrix")
    assert {path.stem for path in written} == expected
    assert all(drawn(path) for path in written)


@pytest.mark.usefixtures("real_pictures")
def test_of_very_many_classes_every_kth_is_named(tmp_path: Path) -> None:
    names = tuple(f"class {k}" for k in range(100))
    run = load_run(write_run(tmp_path / "r", class_names=names, rounds=1, n_clients=3))
    figure = confusion_figure(run)
    shown = written_at(figure.axes[0].yaxis)
    assert shown[:3] == ["class 0", "class 3", "class 6"]
    assert drawn(save(figure, tmp_path / "confusion.png"))


def test_a_failed_job_has_no_pictures(tmp_path: Path) -> None:
    run = load_run(write_failed(tmp_path / "r", "out of memory"))
    assert write_run_plots(run, run.path / "plots") == []
    assert not (run.path / "plots").exists()


@pytest.mark.usefixtures("real_pictures")
def test_ten_thousand_clients_are_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", n_clients=10_000, rounds=1, n_train=300_000)
    run = load_run(folder)
    for name, figure in {"p": partition_figure(run), "c": client_accuracy_figure(run)}.items():
        assert figure is not None
        assert drawn(save(figure, tmp_path / f"{name}.png"))


def test_curves_name_their_last_value_and_the_baseline(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", rounds=5))
    figure = accuracy_figure(run)
    assert figure is not None
    assert f"test (last: {run.final('test', 'accuracy'):.3f})" in legend(figure)
    assert "always the commonest class (0.120, below)" in legend(figure)
    assert figure.axes[0].get_ylim()[0] > 0.12  # which decides nothing about the axis
    (line,) = [x for x in figure.axes[0].lines if str(x.get_label()).startswith("test")]
    assert line.get_ydata() == pytest.approx(run.curve("test", "accuracy").to_numpy())


def test_local_only_has_a_band_from_worst_to_best(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", rounds=5, setting="local_only"))
    figure = accuracy_figure(run)
    assert figure is not None
    assert "worst to best client" in legend(figure)
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(run.curve("test", "accuracy", "min").min())
    assert heights.max() == pytest.approx(run.curve("test", "accuracy", "max").max())


@pytest.mark.usefixtures("real_pictures")
def test_a_loss_that_explodes_is_drawn_on_a_log_scale(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=5)
    assert loss_figure(load_run(folder)).axes[0].get_yscale() == "linear"
    with open(folder / "metrics.csv", "a") as file:
        file.write("6,test,all,loss,1e9\n7,test,all,loss,inf\n8,test,all,loss,\n")
    figure = loss_figure(load_run(folder))
    assert figure.axes[0].get_yscale() == "log"
    assert drawn(save(figure, tmp_path / "loss.png"))


def test_confusion_counts_are_written_into_the_cells(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=1, class_names=("no", "yes"), n_clients=2)
    (folder / "confusion_matrix.csv").write_text("no,yes\n30,10\n0,0\n")
    figure = confusion_figure(load_run(folder))
    assert cells(figure) == [
        "30\n75%",
        "10\n25%",
        "0",
        "0",
    ]  # row by row; a class without images is 0


def test_client_bars_are_sorted_and_carry_the_clients_numbers(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", rounds=3, n_clients=6))
    figure = client_accuracy_figure(run)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == sorted(heights, reverse=True)
    best = written_at(figure.axes[0].xaxis)[0]
    assert run.per_client("test", "own_mix_accuracy")[int(best)] == heights[0]


def compare(folder: Path, count: int, **options: object) -> list[Run]:
    return [
        load_run(write_run(folder / str(k), rounds=2, config={"training.lr": k / 10}, **options))
        for k in range(count)
    ]


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("count", [1, 2, MOST_CURVES])
def test_comparison_has_curves_and_dots(tmp_path: Path, count: int) -> None:
    runs = compare(tmp_path, count, n_clients=2)
    figure = comparison_figure(configurations(runs))
    assert drawn(save(figure, tmp_path / "c.png"))
    left, right = figure.axes
    assert len(left.lines) == count
    assert len(right.get_yticks()) == count


@pytest.mark.usefixtures("real_pictures")
def test_more_configurations_than_can_be_told_apart_have_dots_only(tmp_path: Path) -> None:
    runs = compare(tmp_path, MOST_CURVES + 1, n_clients=2)
    figure = comparison_figure(configurations(runs))
    assert len(figure.axes) == 1
    assert drawn(save(figure, tmp_path / "c.png"))


def test_comparison_shows_every_seed_the_mean_and_its_deviation(tmp_path: Path) -> None:
    reached = (0.90, 0.94, 0.98)
    runs = [
        load_run(write_run(tmp_path / str(s), seed=s, rounds=3, final={"accuracy": a}))
        for s, a in enumerate(reached)
    ]
    left, right = comparison_figure(configurations(runs)).axes
    curves = np.stack([run.curve("test", "accuracy").to_numpy() for run in runs])
    assert left.lines[0].get_ydata() == pytest.approx(curves.mean(axis=0))
    band = left.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((curves.mean(0) + curves.std(0, ddof=1)).max())
    _, seeds, mean = right.lines
    assert list(seeds.get_xdata()) == list(reached)
    assert mean.get_xdata() == pytest.approx([0.94])


def test_where_a_seed_has_no_figure_no_mean_is_drawn(tmp_path: Path) -> None:
    reached = (0.90, float("nan"), 0.98)
    runs = [
        load_run(write_run(tmp_path / str(s), seed=s, rounds=1, final={"accuracy": a}))
        for s, a in enumerate(reached)
    ]
    assert math.isnan(summary_table(runs)["test_accuracy_mean"].item())
    _, seeds, mean = comparison_figure(configurations(runs)).axes[1].lines
    assert list(seeds.get_xdata()) == pytest.approx(reached, nan_ok=True)
    assert math.isnan(mean.get_xdata()[0])


@pytest.mark.parametrize(("count", "bands"), [(2, 2), (8, 0)])
def test_a_band_is_drawn_only_where_its_colour_says_whose_it_is(
    tmp_path: Path, count: int, bands: int
) -> None:
    folders = [tmp_path / str(seed) for seed in range(3)]
    runs = [
        run
        for seed, folder in enumerate(folders)
        for run in compare(folder, count, n_clients=2, seed=seed)
    ]
    left, _ = comparison_figure(configurations(runs)).axes
    assert len(left.lines) == count
    assert len(left.collections) == bands
    assert ("shaded" in left.get_title(loc="left")) == bool(bands)


@pytest.mark.usefixtures("real_pictures")
def test_comparison_without_a_complete_run_still_names_the_failed_ones(tmp_path: Path) -> None:
    runs = [load_run(write_failed(tmp_path / str(k), "killed")) for k in range(2)]
    figure = comparison_figure(configurations(runs))
    assert written_at(figure.axes[1].yaxis)[0] == "all runs (2 failed)"
    save(figure, tmp_path / "c.png")


@pytest.mark.usefixtures("real_pictures")
def test_vector_pictures_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", rounds=3, n_clients=2, class_names=("no", "$y$")))
    heads = {"pdf": b"%PDF", "svg": b"<?xml"}
    drawn = []
    for name in ("a", "b"):
        save(confusion_figure(run), tmp_path / name / "c.png", tuple(heads))
        drawn.append({kind: (tmp_path / name / f"c.{kind}").read_bytes() for kind in heads})
    assert drawn[0] == drawn[1]
    assert all(drawn[0][kind].startswith(head) for kind, head in heads.items())


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("draw", [accuracy_figure, partition_figure])
def test_for_a_paper_a_figure_is_as_wide_as_a_column_or_two(tmp_path: Path, draw: Any) -> None:
    figure = draw(load_run(write_run(tmp_path / "r", n_clients=3, rounds=2)))
    width, entries = 3.5 if figure.legends else 7.16, legend(figure)
    path = save(figure, tmp_path / "a.png", style="paper")
    with Image.open(path) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert picture.width / 300 == pytest.approx(width, abs=0.01)
    assert not figure.texts  # a paper has a caption
    assert legend(figure) == entries
    assert all(7 <= axes.xaxis.label.get_fontsize() < 10 for axes in figure.axes)


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize(
    "names",
    [("atelectasis", "pneumothorax"), pytest.param(tuple("abcdefghij"), marks=pytest.mark.slow)],
)
def test_for_a_paper_square_cells_fill_the_width_and_nothing_is_cut_off(tmp_path, names) -> None:
    run = load_run(write_run(tmp_path / "r", rounds=1, n_clients=2, class_names=names))
    figure = confusion_figure(run)
    assert figure is not None
    drawn, (width, height) = for_paper(figure).get_tightbbox(), figure.get_size_inches()
    margins = np.array([drawn.x0, width - drawn.x1, drawn.y0, height - drawn.y1])
    assert (margins > 0).all()
    assert (margins[:2] < 0.1).all()  # inches
