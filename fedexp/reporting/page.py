"""`report.html` of runs and sweeps: one file, no network, in the reader's light or dark.

Whatever comes from a run is text or a number here: templates escape it, and the page's policy lets
no script run but ours, whose hash it names (Content-Security-Policy, W3C).
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, final

from fedexp.reporting import chart
from fedexp.reporting.blocks import pieces
from fedexp.reporting.results import Run

_KINDS = {".png": "png", ".svg": "svg+xml"}  # that a page shows; a PDF lies beside it


@final
@dataclass(frozen=True)
class Picture:
    """A picture in a page: its name, and its bytes in base64."""

    name: str
    kind: str
    data: str


def page(template: str, **said: Any) -> str:
    """A page of our templates, with all that it says."""
    return str(_templates().get_template(template).render(**said))


def pictures(paths: Iterable[Path], without: Sequence[str] = ()) -> list[Picture]:
    """The pictures among `paths` that a page can show, but for those with a name of `without`."""
    return [
        Picture(
            name=path.stem.replace("_", " "),
            kind=_KINDS[path.suffix],
            data=base64.b64encode(path.read_bytes()).decode(),
        )
        for path in paths
        if path.suffix in _KINDS and path.stem not in without
    ]


def commands(run: Run) -> list[str]:
    """What repeats a run; nothing for one that does not say how it was started."""
    overrides = run.config.get("overrides")
    if not overrides and not run.config.get("choices"):
        return []
    said = [str(override) for override in overrides or []]
    # The names of the first of the user's own folders are known from anywhere then, also ./conf's.
    folders = run.config.get("config_folders") or []
    own = ["--config-dir", str(folders[0])] if folders else []
    return [
        shlex.join(["fedexp", "run", *own, *said]),
        shlex.join(["fedexp", "rerun", *own, run.path.name]),
    ]


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    ours = files("fedexp.reporting") / "templates"
    script = (ours / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("fedexp.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "style": Markup((ours / "page.css").read_text(encoding="utf-8")),
        "pieces": pieces,
        **_sizes(),
    }
    return environment


def _sizes() -> Mapping[str, int]:
    return {
        "width": chart.WIDTH,
        "height": chart.HEIGHT,
        "left": chart.LEFT,
        "right": chart.RIGHT,
        "top": chart.TOP,
        "bottom": chart.BOTTOM,
    }
