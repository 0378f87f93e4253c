"""The plane that updates are drawn in, and what is drawn of files that anybody may have written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedexp.reporting.results import load_run
from fedexp.reporting.updates_plot import LONGEST, plane, updates_figure
from fedexp.run_folder.update_files import UpdateWriter
from tests.support.pictures import legend
from tests.support.run_folders import write_run
from tests.support.updates_on_disk import LAYOUT, random_updates

RNG = np.random.default_rng(11)


def test_the_plane_is_that_of_a_singular_value_decomposition() -> None:
    rows = RNG.normal(size=(9, 40))
    places, share = plane(rows)
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert np.abs(places) == pytest.approx(np.abs(left[:, :2] * values[:2]))
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())


def test_who_scales_up_does_not_make_one_dot_of_the_others() -> None:
    rows = RNG.normal(size=(9, 40))
    rows[0] *= 1e9
    capped = rows.copy()
    capped[0] *= LONGEST * np.median(np.linalg.norm(rows, axis=1)) / np.linalg.norm(rows[0])
    assert plane(rows)[0] == pytest.approx(plane(capped)[0])
    assert np.ptp(plane(rows)[0][1:, 1]) > 1
    assert plane(np.ones((3, 4)))[0].tolist() == [[0, 0]] * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "r", n_clients=4, rounds=1)
    writer = UpdateWriter(folder, LAYOUT, ("safetensors", "pth"))
    for number in range(1, 9):
        writer.write(number, random_updates(4, seed=number), [number > 1, False, False, False])
    return folder


def test_six_rounds_are_drawn_and_each_update_once(folder: Path) -> None:
    figure = updates_figure(load_run(folder))
    assert figure is not None
    titles = [axes.get_title(loc="left").partition(":")[0] for axes in figure.axes]
    assert titles == [f"Round {number}" for number in (1, 2, 3, 5, 6, 8)]
    points = [[len(line.get_xdata()) for line in axes.lines] for axes in figure.axes]
    assert points == [[4], *[[3, 1]] * 5]
    assert legend(figure) == "honest\nmalicious"


def test_what_cannot_be_read_is_left_out(folder: Path) -> None:
    for path in (folder / "updates" / "round-000001").glob("*"):
        path.write_bytes(b"nonsense")
    for path in (folder / "updates" / "round-000002").glob("client-00001.*"):
        path.write_bytes(b"nonsense")
    figure = updates_figure(load_run(folder))
    assert figure is not None
    assert "Not all rows of a round are drawn." in figure.texts[1].get_text().replace("\n", " ")
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [2, 1]  # of round 2


def test_without_updates_nothing_is_drawn(folder: Path, tmp_path: Path) -> None:
    assert updates_figure(load_run(write_run(tmp_path / "s", n_clients=2, rounds=1))) is None
    (folder / "updates" / "index.csv").write_text("round,client\n")
    for path in (folder / "updates").glob("*/*"):
        path.write_bytes(b"nonsense")
    assert updates_figure(load_run(folder)) is None
