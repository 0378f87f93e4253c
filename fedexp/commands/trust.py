"""A run folder may be a stranger's: what its config asks for beside its parts, only a user gives.

Three things reach beyond the folder: code of packages that are not fedexp's (`trust`), trackers
that send figures elsewhere, and a folder for data that is not there yet, to which they would be
downloaded. They are taken from this command's own arguments, never from the folder; a folder that
asks for them is refused, and it is said which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedexp.config.composition import says
from fedexp.core.checks import InputError

if TYPE_CHECKING:
    from fedexp.core.observer import Observer


def refuse_borrowed_trust(saved: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise InputError where a run's config asks for trust that the command line does not settle.

    Args:
        saved: what `config.yaml` of the run says.
        overrides: of this command line; `trust=[]` settles it as well.
    """
    asked = saved.get("trust") or []
    if not asked or says(overrides, "trust"):
        return
    packages = ",".join(map(str, asked)) if isinstance(asked, list) else str(asked)
    raise InputError(
        "the run's config.yaml asks for code that is not fedexp's to be run; only the command line "
        f"can allow it: trust=[{packages}] if you know that code, else trust=[]",
        "trust",
        f"[{packages}]",
    )


def refuse_missing_data(saved: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise InputError where a run's config names a folder of data that is not there.

    Args:
        saved: what `config.yaml` of the run says.
        overrides: of this command line.
    """
    place = (saved.get("paths") or {}).get("data_dir")
    if place and not says(overrides, "paths.data_dir") and not Path(str(place)).is_dir():
        raise InputError(
            "is the folder of the run's data, and not there; say where they lie: "
            "paths.data_dir=FOLDER",
            "paths.data_dir",
            place,
        )


def refuse_borrowed_trackers(observers: Sequence[Observer], overrides: Sequence[str]) -> None:
    """Raise InputError where a run's config has figures sent out of its folder, unasked for.

    Args:
        observers: built of the config of the run.
        overrides: of this command line.
    """
    if says(overrides, "tracker"):
        return
    for observer in observers:
        if where := str(getattr(observer, "sends_to", "")):
            raise InputError(
                "the run's config.yaml has its figures sent there; only the command line can ask "
                "for that, with a value of the tracker's, e.g. tracker.mlflow.tracking_uri=, else "
                "tracker=none",
                "tracker",
                where,
            )
