"""Names in letters that the font of a picture lacks; warnings, such as matplotlib's, are errors."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fedexp.reporting import glyphs
from fedexp.reporting.figures import save
from fedexp.reporting.run_report import report_run
from tests.support.run_folders import write_run

CHINESE = ("肺炎", "正常")


@pytest.fixture(autouse=True)
def no_further_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has only what matplotlib brings."""
    monkeypatch.setattr(glyphs, "_installed", lambda: ())
    glyphs._is_known.cache_clear()
    yield
    glyphs._is_known.cache_clear()


def test_a_name_without_glyphs_is_its_number() -> None:
    assert glyphs.legible(["normal", *CHINESE]) == ["normal", "class 1", "class 2"]
    assert glyphs.legible(["Übergang", "α", "до"]) == ["Übergang", "α", "до"]


@pytest.mark.usefixtures("real_pictures")
def test_a_picture_of_them_is_drawn_without_a_warning(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=1, n_clients=2, class_names=CHINESE)
    report_run(folder)
    assert (folder / "plots" / "confusion_matrix.png").stat().st_size > 5000


@pytest.mark.usefixtures("real_pictures")
def test_other_texts_are_drawn_as_far_as_they_can(tmp_path: Path) -> None:
    figure = Figure()
    title = figure.text(0, 0, "dataset 肺炎 ± 1")
    save(figure, tmp_path / "picture.png")
    assert title.get_text() == "dataset ?? ± 1"


def test_an_installed_font_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithEverything:
        def get_char_index(self, code: int) -> int:
            return 7

    monkeypatch.setattr(glyphs, "_installed", lambda: ("Own",))
    real = glyphs._font
    monkeypatch.setattr(
        glyphs, "_font", lambda family: WithEverything() if family == "Own" else real(family)
    )
    figure = Figure()
    text = figure.text(0, 0, CHINESE[0])
    assert glyphs.legible(CHINESE) == list(CHINESE)
    glyphs.use_installed_fonts(figure)
    assert text.get_text() == CHINESE[0]
    assert text.get_fontfamily() == [glyphs.OWN, "Own"]
