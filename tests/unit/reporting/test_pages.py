"""`report.html`: what it says, that it needs nothing, and that names from a run are only text."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from fedexp.reporting.chart import HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart
from fedexp.reporting.page import commands
from fedexp.reporting.report import report
from fedexp.reporting.results import load_run
from fedexp.reporting.run_report import report_run
from tests.support.run_folders import write_run

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> **b** | </style>'


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def hostile_run(folder: Path) -> Path:
    """A run whose every word wants to be markup."""
    classes = (HOSTILE, "b")
    run = write_run(folder, rounds=3, n_clients=2, class_names=classes)
    document = json.loads((run / "partition.json").read_text())
    (run / "partition.json").write_text(json.dumps({**document, "names": [HOSTILE, "n"]}))
    summary = json.loads((run / "summary.json").read_text())
    more = {"remarks": [HOSTILE], "error": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    (run / "summary.json").write_text(json.dumps(summary | more))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"{config}\noverrides:\n- {json.dumps('x=' + HOSTILE)}\n")
    return run


def test_words_of_a_hostile_folder_are_only_text(tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "sweep" / "<img src=x onerror=alert(3)>" / "javascript:alert(4)")
    report([run])
    report([tmp_path / "sweep"], tmp_path / "out")
    report([tmp_path / "sweep"])
    for page in (run / "report.html", tmp_path / "out" / "report.html"):
        seen = Seen(page.read_text())
        assert len(seen.all("script")) == len(seen.all("style")) == 1
        assert all("src" not in attributes for attributes in seen.all("script"))
        assert all((a["src"] or "").startswith("data:image/") for a in seen.all("img"))
        assert all((a["href"] or "").startswith("./") for a in seen.all("a"))
        names = {name for _, attributes in seen.tags for name in attributes}
        assert not [name for name in names if name.startswith("on")]
        assert "alert(" in seen.text


def test_a_folder_whose_name_is_no_text_has_its_pages(tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    for seed in (0, 1):
        write_run(tmp_path / "sweep" / f"seed={seed}", seed=seed, rounds=3)
    sweep = (tmp_path / "sweep").rename(tmp_path / latin)
    report([sweep], sweep)
    assert "caf\\udce9" in (sweep / "report.html").read_text()
    run = (sweep / "seed=0").rename(sweep / latin)
    report_run(run)
    for page in ("report.html", "report.md"):
        assert "caf\\udce9" in (run / page).read_text()


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", rounds=3)
    report_run(run)
    page = (run / "report.html").read_text()
    seen = Seen(page)
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in seen.tags}
    assert "url(" not in page
    assert "@import" not in page
    (policy,) = [a["content"] for a in seen.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy
    assert "prefers-color-scheme: dark" in page


def test_the_policy_names_the_script_that_is_there(tmp_path: Path) -> None:
    import base64
    import hashlib

    run = write_run(tmp_path / "r", rounds=1)
    report_run(run, plots=False)
    page = (run / "report.html").read_text()
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_a_runs_page_has_its_figures_and_its_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a run", rounds=5, n_clients=3, final={"accuracy": 0.9123})
    config = (run / "config.yaml").read_text()
    said = ["dataset=mnist", "paths.data_dir=my data"]
    (run / "config.yaml").write_text(f"{config}\noverrides: {json.dumps(said)}\n")
    report_run(run, plots=False)
    text = Seen((run / "report.html").read_text()).text
    for expected in ("0.9123", "5 of 5 rounds", "Who holds what", "client 2", "taken for which"):
        assert expected in text
    for command in (
        "fedexp run dataset=mnist 'paths.data_dir=my data'",
        "fedexp rerun 'a run'",
    ):
        assert command in text
        assert command in (run / "report.md").read_text()
    assert commands(load_run(run))[0] == "fedexp run dataset=mnist 'paths.data_dir=my data'"


def test_a_sweeps_page_leads_to_every_job(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").touch()
    for seed in (0, 1):
        write_run(tmp_path / f"aggregator=mean,seed={seed}", seed=seed, rounds=2, n_clients=2)
    report([tmp_path])
    seen = Seen((tmp_path / "report.html").read_text())
    links = [attributes["href"] for attributes in seen.all("a")]
    assert links == [f"./aggregator%3Dmean%2Cseed%3D{seed}/report.html" for seed in (0, 1)]
    assert re.search(r"2 jobs, 1 configuration\b", seen.text)


def test_points_of_a_chart_lie_where_their_values_are() -> None:
    import pandas as pd

    drawn = chart("A", "share", {"test": pd.Series([0.2, 0.4, 0.6], index=[1, 2, 3])}, (), True)
    assert drawn is not None
    points = [tuple(map(float, p.split(","))) for p in drawn.lines[0].points.split()]
    assert points[0][0] == pytest.approx(LEFT)
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert TOP <= points[2][1] < points[0][1] < HEIGHT
    assert points[2][0] < WIDTH
    assert [v for _, _, v in json.loads(drawn.lines[0].values)] == pytest.approx([0.2, 0.4, 0.6])
    zero = next(tick for tick in drawn.y if re.fullmatch("0|0.0", tick.label))
    slope = (points[0][1] - points[2][1]) / 0.4
    assert zero.at == pytest.approx(points[0][1] + 0.2 * slope, abs=0.2)


def test_curves_differ_in_more_than_their_colour() -> None:
    import pandas as pd

    drawn = chart("A", "share", {str(k): pd.Series([k, 1.0], index=[1, 2]) for k in range(24)})
    assert drawn is not None
    looks = [line.look.split() for line in drawn.lines]
    assert len(set(map(tuple, looks))) == 24
    for before, after in pairwise(looks):
        assert before[0] != after[0]
        assert before[1] != after[1]


def test_a_single_round_stands_in_the_middle() -> None:
    import pandas as pd

    drawn = chart("A", "share", {"test": pd.Series([0.5], index=[1])})
    assert drawn is not None
    assert float(drawn.lines[0].points.split(",")[0]) == (LEFT + WIDTH - RIGHT) / 2
    assert [tick.at for tick in drawn.x] == [(LEFT + WIDTH - RIGHT) / 2]


def test_a_start_far_below_does_not_decide_the_axis() -> None:
    import pandas as pd

    climbs = pd.Series([0.1, *([0.9] * 10), 0.95], index=range(1, 13))
    drawn = chart("A", "share", {"test": climbs})
    assert drawn is not None
    assert all(float(tick.label) > 0.8 for tick in drawn.y)
    assert "outside" in drawn.notes[0]
    short = chart("A", "share", {"test": pd.Series([0.1, 0.9], index=[1, 2])})
    assert short is not None
    assert not short.notes
