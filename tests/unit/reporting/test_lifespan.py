"""What is left of a backdoor after its attack: table, text and picture of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedexp.reporting.lifespan_plot import lifespan_figure
from fedexp.reporting.lifespan_table import lifespan_markdown, lifespan_table
from fedexp.reporting.sweep_report import report_sweep
from fedexp.reporting.tables import Configuration, configurations
from tests.support.run_folders import write_run
from tests.support.sweep_folders import load

# Success at rounds 5, 10, 15 and 20 for two seeds; the last attacked round is the tenth.
Seeds = list[tuple[float, ...]]
SUCCESS: dict[tuple[str, str], Seeds] = {
    ("backdoor", "mean"): [(0.5, 0.9, 0.6, 0.4), (0.5, 0.7, 0.2, 0.0)],
    ("backdoor", "median"): [(0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.1)],
    ("dba", "mean"): [(0.5, 0.8, 0.8, 0.8), (0.5, 0.8, 0.8, 0.8)],
}


def write(
    folder: Path,
    last_round: int | None = 9,
    cells: Mapping[tuple[str, str], Seeds] = SUCCESS,
    share: float = 1.0,
) -> list[Configuration]:
    for (attack, rule), seeds in cells.items():
        for seed, values in enumerate(seeds):
            write_run(
                folder / f"aggregator={rule},attack={attack},seed={seed}",
                seed=seed,
                choices={"attack": attack, "aggregator": rule},
                config={
                    "attack.n_malicious": 1,
                    "attack.last_round": last_round,
                    "attack.schedule": {"share_of_rounds": share},
                },
                more=[
                    (round, "attack", "all", "success", value)
                    for round, value in zip((5, 10, 15, 20), values, strict=True)
                ],
                rounds=20,
                eval_every=5,
                n_clients=2,
                class_names=("no", "yes"),
            )
    return configurations(load(folder))


def test_success_by_the_rounds_since_the_attack_by_hand(tmp_path: Path) -> None:
    table = lifespan_table(write(tmp_path)).set_index(["attack", "aggregator", "rounds_after"])
    assert list(table["n"].unique()) == [2]
    mean = table.sort_index().loc["backdoor", "mean"]
    assert list(mean.index) == [0, 5, 10]
    assert list(mean["success_mean"]) == pytest.approx([0.8, 0.4, 0.2])
    assert list(mean["success_sd"]) == pytest.approx([math.sqrt(x) for x in (0.02, 0.08, 0.08)])


def test_where_a_share_of_the_rounds_is_attacked_the_last_of_these_counts(tmp_path: Path) -> None:
    """Of rounds 0 to 9, a quarter: 3 and 7; the evaluations are at 5, 10, 15 and 20."""
    table = lifespan_table(write(tmp_path, share=0.25))
    assert sorted(set(table["rounds_after"])) == [2, 7, 12]


def test_the_text_has_the_last_attacked_round_and_the_end(tmp_path: Path) -> None:
    text = lifespan_markdown(write(tmp_path))
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert ["", "attack", "aggregator", "0 rounds after", "10 rounds after", ""] in lines
    assert ["", "backdoor", "mean", "0.800 ± 0.141", "0.200 ± 0.283", ""] in lines


@pytest.mark.parametrize("last_round", [None, 19], ids=["no end", "ends with the run"])
def test_an_attack_that_lasts_has_no_lifespan(tmp_path: Path, last_round: int | None) -> None:
    groups = write(tmp_path, last_round)
    assert lifespan_table(groups).empty
    assert lifespan_markdown(groups) == ""


def test_a_panel_an_attack_and_a_line_a_rule(tmp_path: Path) -> None:
    figure = lifespan_figure(write(tmp_path))
    shown = {axes.get_title(loc="left"): len(axes.get_lines()) for axes in figure.axes}
    assert shown == {"backdoor": 2, "dba": 1}
    line = figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [0, 5, 10]
    assert list(line.get_ydata()) == pytest.approx([0.8, 0.4, 0.2])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mean", "median"]


def test_the_sweeps_report_has_all_three(tmp_path: Path) -> None:
    write(tmp_path, cells={("dba", "mean"): SUCCESS["dba", "mean"][:1]})
    text = report_sweep([tmp_path], tmp_path)
    assert "What is left after the attack" in text
    assert (tmp_path / "lifespan.csv").is_file()
    assert (tmp_path / "lifespan.png").is_file()
