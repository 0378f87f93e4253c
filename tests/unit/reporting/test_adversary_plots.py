"""The pictures of an attack and of a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedexp.reporting.detector_plots import detector_roc_figure, detector_scores_figure
from fedexp.reporting.figures import save
from fedexp.reporting.plots import accuracy_figure, write_run_plots
from tests.support.attacked_runs import of_a_detector, of_an_attack, run_with
from tests.support.pictures import drawn, legend


@pytest.mark.usefixtures("real_pictures")
def test_accuracy_shows_the_attacks_success_and_where_it_begins(tmp_path: Path) -> None:
    figure = accuracy_figure(run_with(tmp_path, of_an_attack(first=4)))
    assert figure is not None
    assert "attack success (last: 0.800)" in legend(figure)
    assert "first attacked round (4)" in legend(figure)
    (line,) = [x for x in figure.axes[0].lines if str(x.get_label()).startswith("attack")]
    assert line.get_ydata() == pytest.approx(np.arange(1, 9) / 10)
    assert drawn(save(figure, tmp_path / "accuracy.png"))


def test_an_attack_from_the_start_is_not_marked(tmp_path: Path) -> None:
    figure = accuracy_figure(run_with(tmp_path, of_an_attack(first=1)))
    assert figure is not None
    assert "attacked round" not in legend(figure)


@pytest.mark.usefixtures("real_pictures")
def test_the_pictures_of_a_detector(tmp_path: Path) -> None:
    run = run_with(tmp_path, of_a_detector(range(1, 9)))
    written = {path.stem: path for path in write_run_plots(run, tmp_path / "plots")}
    for name in ("detector_scores", "detector_roc"):
        assert drawn(written[name])
    scores, roc = detector_scores_figure(run), detector_roc_figure(run)
    assert scores is not None
    assert roc is not None
    assert "honest (24 updates)" in legend(scores)
    assert "malicious (16 updates)" in legend(scores)
    assert "threshold (3.5)" in legend(scores)
    assert scores.axes[0].get_xscale() == "linear"
    assert "AUC 0.833" in roc.texts[0].get_text()
    curve, _, flagged = roc.axes[0].lines
    assert (flagged.get_xdata()[0], flagged.get_ydata()[0]) == pytest.approx((1 / 3, 1 / 2))
    # The points from no alarm to all: 9 and 4, 3, 2 and 1 are flagged one after the other.
    corners = set(zip(curve.get_xdata().round(3), curve.get_ydata(), strict=True))
    assert {(0.0, 0.5), (0.333, 0.5), (0.333, 1.0), (1.0, 1.0)} <= corners


@pytest.mark.usefixtures("real_pictures")
def test_scores_of_many_magnitudes_are_drawn_on_a_log_scale(tmp_path: Path) -> None:
    rows = of_a_detector((1, 2))
    rows += [(1, "update", str(k), "score", 1e6) for k in (5, 6)]
    rows += [(1, "update", str(k), "flagged", 1.0) for k in (5, 6)]
    rows += [(2, "round", "all", "threshold", 5.0)]
    figure = detector_scores_figure(run_with(tmp_path, rows))
    assert figure is not None
    assert figure.axes[0].get_xscale() == "log"
    assert "median threshold; shaded: all rounds' (3.5 to 5)" in legend(figure)
    assert drawn(save(figure, tmp_path / "scores.png"))


@pytest.mark.usefixtures("real_pictures")
def test_equal_scores_and_no_detector(tmp_path: Path) -> None:
    rows = [
        (1, "update", str(client), metric, value)
        for client in range(4)
        for metric, value in (("score", 0.0), ("flagged", 0.0))
    ]
    run = run_with(tmp_path, rows)
    assert detector_roc_figure(run) is None
    figure = detector_scores_figure(run)
    assert figure is not None
    save(figure, tmp_path / "scores.png")
    assert detector_scores_figure(run_with(tmp_path / "2", [])) is None
