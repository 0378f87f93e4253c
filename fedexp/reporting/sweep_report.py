"""The report of several runs: tables as text and files, and pictures that compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedexp.core.documents import read_json_object
from fedexp.core.files import remove_leftovers, to_json, write_atomically
from fedexp.core.text import printable_lines, without_markup
from fedexp.reporting.finding import find_runs, links_not_followed
from fedexp.reporting.leakage_sweep import leakage_markdown, leakage_table
from fedexp.reporting.lifespan_table import lifespan_markdown, lifespan_table
from fedexp.reporting.membership import membership_sweep
from fedexp.reporting.no_effect import no_effect
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.robustness import robustness_markdown, robustness_table
from fedexp.reporting.sweep_page import sweep_page
from fedexp.reporting.tables import (
    configurations,
    markdown,
    run_table,
    summary_table,
    to_markdown,
)
from fedexp.reporting.trials import trials_markdown
from fedexp.reporting.unlike import unlike
from fedexp.reporting.utility_and_leak import utility_and_leak
from fedexp.reporting.verdict_sweep import verdict_sweep_markdown, verdict_table
from fedexp.reporting.writing import as_far_as_possible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_A_SWEEP = (
    *("table.csv", "summary.csv", "table.md", "report.html", "robustness.csv", "verdict.csv"),
    *("attack_matrix.png", "comparison.png", "accuracy_by_epsilon.png"),
    *("leakage.csv", "membership.csv", "utility_and_leak.csv", "lifespan.csv", "lifespan.png"),
    *("leakage_images.png", "leakage_classes.png", "leakage_noise.png"),
)
_PAGE = "report.html"
VECTORS = ("pdf", "svg")
"""Formats of pictures beside PNG."""
_WRITTEN = ".report.json"  # which of them the last report has written


def report_sweep(
    paths: Iterable[str | Path],
    folder: str | Path | None = None,
    also: Sequence[str] = (),
    style: str = "screen",
) -> str:
    """Compare the runs among and below `paths`; return what to print, in Markdown.

    Writes table.csv (one row a job), summary.csv (one row a configuration), table.md, report.html
    and comparison.png into `folder`. Where the attack differs between runs, also robustness.csv and
    attack_matrix.png, which above 24 configurations take the place of comparison.png; where epsilon
    differs, accuracy_by_epsilon.png; where leakage was studied, leakage.csv (one row a figure) and
    the pictures of it, with several studies utility_and_leak.csv (one row a configuration); where
    there are verdicts, verdict.csv; where a backdoor's attack ended before the runs did,
    lifespan.csv (one row an evaluation) and lifespan.png. What an earlier report wrote there and
    this one does not is removed.

    Args:
        paths: of runs, or folders that hold some.
        folder: where to write; by default the one path that was named, if a sweep made that folder,
            else nowhere: tables of somebody's own may lie there.
        also: as for `report_run`.
        style: the same.

    Raises:
        InputError: a path is no folder, no run lies there, a file cannot be read, or `folder`
            cannot be written to.
    """
    named = [Path(path) for path in paths]
    return report_runs([load_run(path) for path in find_runs(named)], named, folder, also, style)


def report_runs(
    runs: Sequence[Run],
    paths: Sequence[Path],
    folder: str | Path | None = None,
    also: Sequence[str] = (),
    style: str = "screen",
) -> str:
    """The same of runs that were read; `also` and `style` as for `report_run`."""
    from fedexp.reporting.comparison import MOST_CURVES, comparison_figure, run_in_common
    from fedexp.reporting.heatmaps import attack_matrix_figure
    from fedexp.reporting.leakage_plots import leakage_sweep_figures
    from fedexp.reporting.lifespan_plot import lifespan_figure
    from fedexp.reporting.privacy_plots import accuracy_by_epsilon_figure

    asked_for = folder is not None and [Path(folder)] != [Path(path) for path in paths]
    if folder is None and len(paths) == 1 and _is_of_a_sweep(Path(paths[0])):
        folder = paths[0]

    robustness, groups = robustness_table(runs), configurations(runs)
    jobs = run_table(runs)
    tables = {"table.csv": jobs, "summary.csv": summary_table(runs, jobs)}
    figures = {}
    matrix = ""
    if robustness is not None:
        tables["robustness.csv"] = robustness
        figures["attack_matrix.png"] = attack_matrix_figure(robustness, run_in_common(runs))
        matrix = robustness_markdown(runs, robustness)
    if outlived := lifespan_markdown(groups):
        tables["lifespan.csv"] = lifespan_table(groups)
        figures["lifespan.png"] = lifespan_figure(groups, run_in_common(runs))
        outlived = f"## What is left after the attack\n\n{outlived}\n"
    many = len(groups) > MOST_CURVES and robustness is not None
    if not many:
        figures["comparison.png"] = comparison_figure(groups)
    if (by_epsilon := accuracy_by_epsilon_figure(groups, run_in_common(runs))) is not None:
        figures["accuracy_by_epsilon.png"] = by_epsilon
    leaked = leakage_markdown(runs)
    if leaked:
        membership = membership_sweep(groups)
        if len(membership):
            leaked = f"### Membership, by adversary\n\n{to_markdown(membership)}\n\n{leaked}"
            tables["membership.csv"] = membership
        beside = utility_and_leak(groups)
        if len(beside):
            leaked = f"### What is learned, and what leaks\n\n{to_markdown(beside)}\n\n{leaked}"
            tables["utility_and_leak.csv"] = beside
        leaked = f"## Leakage\n\n{leaked}\n"
        tables["leakage.csv"] = leakage_table(runs)
        figures |= leakage_sweep_figures(groups, run_in_common(runs))

    if judged := verdict_sweep_markdown(runs):
        tables["verdict.csv"] = verdict_table(runs)
        judged = f"## What federation is worth to sites\n\n{judged}\n"
    whole = markdown(runs, jobs)
    sections = [f"## What survives which attack\n\n{matrix}\n"] if matrix else []
    if trials := trials_markdown(runs):
        sections.append(f"## Trials\n\n{trials}\n")
    page = [*sections, f"## All configurations\n\n{whole}" if sections else whole]
    idle = "\n".join(f"- {sentence}" for sentence in no_effect(runs))
    idle = f"## Without effect\n\n{idle}\n" if idle else ""
    apart = "\n".join(f"- {sentence}" for sentence in unlike(groups))
    apart = f"## Not in common\n\n{apart}\n" if apart else ""
    passed_over = "\n".join(f"- {link}" for link in links_not_followed(paths))
    passed_over = f"## Links that were not followed\n\n{passed_over}\n" if passed_over else ""
    page += filter(None, [outlived, judged, leaked, apart, idle, passed_over])
    text = "\n".join(page)
    parts = [matrix, "" if many else whole, trials, outlived, judged, leaked]
    parts += [apart, idle, passed_over]
    shown = printable_lines("\n\n".join(part.rstrip("\n") for part in parts if part))
    if folder is None:
        return f"{shown}\n\nNothing was written; --out FOLDER keeps the tables and pictures"
    shown_there = [f"![{Path(name).stem}]({name})" for name in figures]
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    texts["table.md"] = "\n".join([without_markup(text), *shown_there]) + "\n"
    place = Path(folder)
    written = _write(
        place,
        texts,
        figures,
        lambda drawn: sweep_page(place, runs, groups, jobs, text, drawn),
        also,
        style,
        asked_for,
    )
    said = printable_lines(str(folder))
    return f"{shown}\n\nWritten to {said}: {', '.join(written) or 'nothing'}"


def _write(
    folder: Path,
    texts: Mapping[str, str],
    figures: Mapping[str, Figure],
    page: Callable[[Sequence[Path]], str],
    also: Sequence[str],
    style: str,
    asked_for: bool,
) -> list[str]:
    """Write a sweep's report, in place of an earlier one; the names of what was written.

    `page` makes `report.html` of the pictures' paths.
    """
    from fedexp.reporting.figures import save

    written: list[str] = []
    with as_far_as_possible(folder, asked_for):
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _written_before(folder)
        remove_leftovers(folder.glob(".*.tmp"), older_than=3600)  # others may be writing here now
        # First, so that a report that is cut short forgets nothing it wrote.
        vectors = [f"{Path(name).stem}.{kind}" for name in figures for kind in also]
        names = [*texts, *figures, *vectors, _PAGE]
        write_atomically(folder / _WRITTEN, to_json({"files": sorted({*earlier, *names})}))
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
            written.append(name)
        for name, figure in figures.items():
            save(figure, folder / name, also, style)
            written.append(name)
        content = page([folder / name for name in figures])
        # A folder's name need not be text.
        write_atomically(folder / _PAGE, content.encode(errors="backslashreplace"))
        written += [*vectors, _PAGE]
        for name in earlier - {*names}:  # of a report on fewer or other runs
            (folder / name).unlink(missing_ok=True)
        write_atomically(folder / _WRITTEN, to_json({"files": names}))
    return written


def _is_of_a_sweep(folder: Path) -> bool:
    return (folder / "multirun.yaml").is_file() or (folder / _WRITTEN).is_file()


def _written_before(folder: Path) -> set[str]:
    """Which of the files that reports write an earlier one has written here."""
    if not (folder / _WRITTEN).is_file():
        return set()
    files = read_json_object(folder / _WRITTEN).get("files")
    ours = {*_OF_A_SWEEP}
    ours |= {
        f"{Path(name).stem}.{kind}" for name in ours if name.endswith(".png") for kind in VECTORS
    }
    return ours & {*map(str, files if isinstance(files, list) else ())}
