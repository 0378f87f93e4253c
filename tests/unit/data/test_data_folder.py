from pathlib import Path

import platformdirs
import pytest

from fedexp.data.folder import data_folder


def test_the_config_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDEXP_DATA_DIR", "/from/environment")
    assert data_folder("/from/config") == Path("/from/config")
    assert data_folder(None) == data_folder("") == Path("/from/environment")


@pytest.mark.parametrize("empty", [None, ""])
def test_the_cache_folder_comes_last(monkeypatch: pytest.MonkeyPatch, empty: str | None) -> None:
    if empty is None:
        monkeypatch.delenv("FEDEXP_DATA_DIR", raising=False)
    else:
        monkeypatch.setenv("FEDEXP_DATA_DIR", empty)
    assert data_folder(None) == Path(platformdirs.user_cache_dir("fedexp")) / "data"


def test_the_path_is_absolute_and_the_home_folder_is_filled_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_folder("images") == tmp_path / "images"
    assert data_folder("~/images") == tmp_path / "home" / "images"
