"""Where configs lie. Light, so that `fedexp list` answers at once."""

from __future__ import annotations

from pathlib import Path

from fedexp.core.checks import refuse_no_folder


def conf_folder() -> Path:
    """The packaged configs: in the wheel, or at the top of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def own_conf_folder() -> Path | None:
    """`./conf` of the current folder, where it holds configs of the user's own.

    Not where it has a `config.yaml`: that is another program's tree, or this repository's.
    """
    own = Path.cwd() / "conf"
    return own if own.is_dir() and not (own / "config.yaml").exists() else None


def config_folders(named: str | None = None) -> list[Path]:
    """All of them; a choice in an earlier one hides the same choice in a later one.

    Args:
        named: what `--config-dir` says.

    Raises:
        InputError: there is no such folder.
    """
    own = own_conf_folder()
    folders = [conf_folder()] if own is None else [own, conf_folder()]
    if named is None:
        return folders
    refuse_no_folder(Path(named), "--config-dir")
    return [Path(named), *folders]
