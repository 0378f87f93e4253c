"""The matrix of defences and attacks as a picture, also of very many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from fedexp.reporting.comparison import MOST_CURVES, MOST_ROWS, comparison_figure
from fedexp.reporting.figures import save
from fedexp.reporting.heatmaps import attack_matrix_figure
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import configurations
from tests.support.attacked_runs import table_of, write_sweep
from tests.support.pictures import cells, drawn
from tests.support.run_folders import write_config, write_failed
from tests.support.sweep_folders import load


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrasts(figure: Figure) -> Iterator[float]:
    axes = figure.axes[0]
    (picture,) = axes.images
    values = np.asarray(picture.get_array().filled(np.nan))
    (numbers,) = axes.collections
    for place, colour in zip(numbers.get_offsets(), numbers.get_facecolors(), strict=True):
        column, row = (int(at) for at in place)
        below = luminance(picture.to_rgba(values)[row, column, :3])
        light, dark = sorted([below, luminance(to_rgb(colour))], reverse=True)
        yield (light + 0.05) / (dark + 0.05)


def test_every_number_can_be_read_on_its_colour_and_greys_keep_the_order(tmp_path: Path) -> None:
    levels = np.linspace(0.1, 1.0, 13)
    accuracy = {(f"rule{k}", "none"): (value,) for k, value in enumerate(levels)}
    accuracy |= {(f"rule{k}", "alie"): (1.1 - value,) for k, value in enumerate(levels)}
    figure = attack_matrix_figure(table_of(write_sweep(tmp_path, accuracy)))
    assert min(contrasts(figure)) > 4.3
    (picture,) = figure.axes[0].images
    greys = [luminance(colour[:3]) for colour in picture.to_rgba(np.linspace(0.1, 1.0, 64))]
    assert greys == sorted(greys)


@pytest.mark.usefixtures("real_pictures")
def test_many_configurations_are_compared_by_the_matrix_alone(tmp_path: Path) -> None:
    count = MOST_CURVES // 2 + 1
    accuracy = {(f"rule{k}", attack): (0.5,) for k in range(count) for attack in ("none", "alie")}
    write_sweep(tmp_path, accuracy, rounds=1)
    (tmp_path / "comparison.png").write_bytes(b"of an earlier report")
    (tmp_path / ".report.json").write_text('{"files": ["comparison.png"]}')
    text = report_sweep([tmp_path], tmp_path)
    assert not (tmp_path / "comparison.png").exists()
    assert drawn(tmp_path / "attack_matrix.png")
    # Thirteen columns are too wide for a page: the defences become the rows.
    assert "| defence " in text
    assert "balanced accuracy" not in text
    assert "balanced accuracy" in (tmp_path / "table.md").read_text()


@pytest.mark.usefixtures("real_pictures")
def test_of_hundreds_of_configurations_without_a_matrix_the_first_are_drawn(tmp_path: Path) -> None:
    for k in range(MOST_ROWS + 30):
        folder = tmp_path / str(k)
        write_config(folder, config={"training.lr": k / 1000})
        write_failed(folder, "killed")
    figure = comparison_figure(configurations(load(tmp_path)))
    assert len(figure.axes[0].get_yticklabels()) == MOST_ROWS
    assert figure.get_figheight() < 40
    assert "The first 100 of 130 configurations" in figure.texts[1].get_text().replace("\n", " ")


@pytest.mark.usefixtures("real_pictures")
def test_of_very_many_panels_and_defences_the_first_are_drawn() -> None:
    rows = [
        {"panel": f"lr={panel}", "defence": f"rule{rule}", "attack": attack, "n": 1}
        for panel in range(15)
        for rule in range(50)
        for attack in ("none", "alie", "worst case")
    ]
    table = pd.DataFrame(rows).assign(
        failed=0,
        unfinished=0,
        unmeasured=0,
        test_accuracy_mean=0.5,
        test_accuracy_sd=0.1,
        attack_success_mean=math.nan,
    )
    figure = attack_matrix_figure(table)
    assert len([axes for axes in figure.axes if axes.get_title(loc="left")]) == 12
    assert max(figure.get_size_inches()) < 50
    assert "Not all are drawn: see robustness.csv." in figure.texts[1].get_text().replace("\n", " ")


def test_what_survives_stands_first_and_says_how_sure_that_is(tmp_path: Path) -> None:
    accuracy = {
        ("mean", "none"): (0.9, 0.9),
        ("mean", "alie"): (0.8, 0.8),
        ("mean", "ipm"): (0.1, 0.3),
        ("krum", "none"): (0.7, 0.7),
        ("krum", "alie"): (0.6, 0.6),
        ("krum", "ipm"): (0.6, 0.7),
    }
    figure = attack_matrix_figure(table_of(write_sweep(tmp_path, accuracy, rounds=1)))
    names = [[text.get_text() for text in ticks] for ticks in _ticks(figure)]
    assert names == [["krum", "mean"], ["none", "alie", "ipm", "worst case"]]
    shown = cells(figure)
    assert shown[4:6] == ["0.650\n±0.071", "0.200\n±0.141"]  # of 0.6 and 0.7, of 0.1 and 0.3
    assert shown[6:] == ["0.600", "0.200"]


def _ticks(figure: Figure) -> tuple[list[Text], list[Text]]:
    axes = figure.axes[0]
    return axes.get_xticklabels(), axes.get_yticklabels()


@pytest.mark.usefixtures("real_pictures")
def test_long_titles_of_panels_lie_beside_each_other(tmp_path: Path) -> None:
    rows = [
        {"panel": f"partition=of_a_long_name, model=of_another, lr={panel}", "defence": rule}
        | {"attack": attack, "n": 1, "test_accuracy_mean": 0.5}
        for panel in range(6)
        for rule in ("mean", "median")
        for attack in ("none", "an_attack_of_a_long_name", "worst case")
    ]
    unknown = ("test_accuracy_sd", "attack_success_mean")
    counts = ("failed", "unfinished", "unmeasured")
    table = pd.DataFrame(rows).assign(
        **dict.fromkeys(counts, 0), **dict.fromkeys(unknown, math.nan)
    )
    figure = attack_matrix_figure(table)
    save(figure, tmp_path / "matrix.png")
    *panels, bar = figure.axes
    titles = [
        text.get_window_extent()
        for axes in panels
        for text in axes.findobj(Text)
        if "partition" in text.get_text()
    ]
    assert len(titles) == 6
    for title, other in combinations([*titles, bar.get_window_extent()], 2):
        assert not title.overlaps(other)
    assert bar.get_window_extent().width < 0.4 * figure.dpi
