"""Writes the report of a run or of a sweep: figures as text, tables as files, plots as PNG."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedexp.core.documents import read_json_object
from fedexp.core.files import remove_leftovers, to_json, write_atomically
from fedexp.core.links import refuse_ways_out
from fedexp.core.text import printable_lines, without_markup
from fedexp.reporting.adversary import adversary_facts
from fedexp.reporting.leakage import leakage_report
from fedexp.reporting.leakage_sweep import leakage_markdown, leakage_table
from fedexp.reporting.membership import membership_sweep, membership_table
from fedexp.reporting.no_effect import no_effect
from fedexp.reporting.privacy import privacy_line, privacy_statement
from fedexp.reporting.results import Run, find_runs, is_run, links_not_followed, load_run
from fedexp.reporting.robustness import robustness_markdown, robustness_table
from fedexp.reporting.tables import (
    configurations,
    markdown,
    run_table,
    spread,
    summary_table,
    to_markdown,
)
from fedexp.reporting.trials import trials_markdown
from fedexp.reporting.verdict import verdict_lines, verdict_markdown
from fedexp.reporting.verdict_sweep import verdict_sweep_markdown, verdict_table

log = logging.getLogger("fedexp")

_OF_A_SWEEP = (
    *("table.csv", "summary.csv", "table.md", "robustness.csv", "verdict.csv"),
    *("attack_matrix.png", "comparison.png", "accuracy_by_epsilon.png"),
    *("leakage.csv", "membership.csv"),
    *("leakage_images.png", "leakage_classes.png", "leakage_noise.png"),
)
_WRITTEN = ".report.json"  # which of them the last report has written
if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADINGS = {
    "accuracy": "accuracy",
    "majority_baseline": "majority baseline",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "loss": "loss",
}
_OF_SOME_TASKS = {"exact_match": "exact match"}


def report(folders: Sequence[Path], out: Path | None = None) -> str:
    """What `fedexp report` prints: one run's report, or the table of a sweep or several runs.

    Written is only into run folders, into a sweep's own folder where that is what was named, or, if
    `out` is given, into `out` alone. What cannot be written is printed all the same.

    Raises:
        InputError: there is no run in `folders`.
    """
    if len(folders) == 1 and is_run(folders[0]):
        if out is None:
            refuse_ways_out(folders[0])
        return report_run(folders[0], folder=out)
    runs = list(map(load_run, find_runs(folders)))
    if out is None:
        for run in runs:
            if run.path in folders or not run.path.is_symlink():  # whose target may be anybody's
                refuse_ways_out(run.path)
                _report_run(run, bool(run.config.get("plots", True)), run.path)
    return _report_sweep(runs, folders, out)


def report_run(path: str | Path, plots: bool = True, folder: Path | None = None) -> str:
    """Write `report.md` and `plots/` into the run folder `path`; return the report in short.

    Where there is a verdict, `report.html` too.

    Args:
        path: the run folder.
        plots: draw pictures too, which takes most of the time.
        folder: where to write, if not into the run folder.

    Raises:
        InputError: `path` is no run folder, or one of its files cannot be read.
    """
    run = load_run(path)
    return _report_run(run, plots, run.path if folder is None else folder)


def _report_run(run: Run, plots: bool, folder: Path) -> str:
    pictures: list[Path] = []
    with _as_far_as_possible(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pictures = _draw(run, folder / "plots") if plots else []
    of_adversary = adversary_facts(run)
    leaked, leaked_lines = leakage_report(run)
    membership = membership_table(run)
    verdict = run.verdict
    shown = "\n\n".join(f"![{p.stem}]({p.relative_to(folder)})" for p in pictures)
    blocks = [f"# {run.path.name}", _headline(run)]
    if run.error:
        blocks.append(f"**Error:** {run.error}")
    remarks = [str(remark) for remark in run.summary.get("remarks") or []]
    for heading, text in {
        "Remarks": "\n".join(f"- {remark}" for remark in remarks),
        "Figures": to_markdown(_figures(run)),
        "Privacy statement": privacy_statement(run),
        "What federation is worth to every site": verdict_markdown(verdict) if verdict else "",
        "Attack and defence": _facts(of_adversary),
        "Membership, by adversary": to_markdown(membership) if len(membership) else "",
        "Leakage": leaked,
        "Over the clients": _over_clients(run),
        "Partition": _facts(_who_holds_what(run.partition or {})),
        "Cost": _facts(_cost(run)),
        "How to repeat it": _facts(_provenance(run)),
    }.items():
        if text:
            blocks.append(f"## {heading}\n\n{text}")
    page = without_markup("\n\n".join(blocks))
    page += f"\n\n## Plots\n\n{shown}\n" if shown else "\n"

    lines = [_headline(run)]
    if run.error:
        lines.append(f"Error: {run.error}")
    lines += [f"Note: {remark}" for remark in remarks]
    lines += ["", _figures(run).to_string(index=False), ""]
    if of_adversary:
        lines += [f"{name[0].upper()}{name[1:]}: {fact}" for name, fact in of_adversary.items()]
        lines.append("")
    if promise := privacy_line(run):
        lines += [promise, ""]
    if len(membership):
        lines += ["Membership, by adversary:", membership.to_string(index=False), ""]
    if leaked_lines:
        lines += [leaked_lines, ""]
    if verdict:
        lines += [verdict_lines(verdict), ""]
    with _as_far_as_possible(folder):
        write_atomically(folder / "report.md", page.encode())
        lines.append(f"Report: {folder / 'report.md'}")
        if verdict:
            write_atomically(folder / "report.html", _page(run, verdict).encode())
            lines.append(f"Page:   {folder / 'report.html'}")
    if pictures:
        names = ", ".join(picture.name for picture in pictures)
        lines.append(f"Plots:  {folder / 'plots'} ({names})")
    return printable_lines("\n".join(lines))


def report_sweep(paths: Iterable[str | Path], folder: str | Path | None = None) -> str:
    """Compare the runs among and below `paths`; return what to print, in Markdown.

    Writes table.csv (one row a job), summary.csv (one row a configuration), table.md and
    comparison.png into `folder`. Where the attack differs between runs, also robustness.csv and
    attack_matrix.png, which above 24 configurations take the place of comparison.png; where epsilon
    differs, accuracy_by_epsilon.png; where leakage was studied, leakage.csv (one row a figure) and
    the pictures of it; where there are verdicts, verdict.csv. What an earlier report wrote there
    and this one does not is removed.

    Args:
        paths: of runs, or folders that hold some.
        folder: where to write; by default the one path that was named, if a sweep made that folder,
            else nowhere: tables of somebody's own may lie there.

    Raises:
        InputError: a path is no folder, no run lies there, or a file cannot be read.
    """
    named = [Path(path) for path in paths]
    return _report_sweep([load_run(path) for path in find_runs(named)], named, folder)


def _report_sweep(
    runs: Sequence[Run], paths: Sequence[Path], folder: str | Path | None = None
) -> str:
    from fedexp.reporting.comparison import MOST_CURVES, comparison_figure, run_in_common
    from fedexp.reporting.heatmaps import attack_matrix_figure
    from fedexp.reporting.leakage_plots import leakage_sweep_figures
    from fedexp.reporting.privacy_plots import accuracy_by_epsilon_figure

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
        leaked = f"## Leakage\n\n{leaked}\n"
        tables["leakage.csv"] = leakage_table(runs)
        figures |= leakage_sweep_figures(groups, run_in_common(runs))

    if judged := verdict_sweep_markdown(runs):
        tables["verdict.csv"] = verdict_table(runs)
        judged = f"## What federation is worth to sites\n\n{judged}\n"
    whole = markdown(runs, jobs)
    sections = [f"## What survives which attack\n\n{matrix}\n"] if matrix else []
    pictures = [f"![{Path(name).stem}]({name})" for name in figures]
    if trials := trials_markdown(runs):
        sections.append(f"## Trials\n\n{trials}\n")
    page = [*sections, f"## All configurations\n\n{whole}" if sections else whole]
    idle = "\n".join(f"- {sentence}" for sentence in no_effect(runs))
    idle = f"## Without effect\n\n{idle}\n" if idle else ""
    passed_over = "\n".join(f"- {link}" for link in links_not_followed(paths))
    passed_over = f"## Links that were not followed\n\n{passed_over}\n" if passed_over else ""
    page += filter(None, [judged, leaked, idle, passed_over])
    page = [without_markup("\n".join(page)), *pictures]
    parts = [matrix, "" if many else whole, trials, judged, leaked, idle, passed_over]
    shown = printable_lines("\n\n".join(part.rstrip("\n") for part in parts if part))
    if folder is None:
        return f"{shown}\n\nNothing was written; --out FOLDER keeps the tables and pictures"
    texts = {name: table.to_csv(index=False) for name, table in tables.items()}
    written = _write(Path(folder), {**texts, "table.md": "\n".join(page) + "\n"}, figures)
    place = printable_lines(str(folder))
    return f"{shown}\n\nWritten to {place}: {', '.join(written) or 'nothing'}"


def _write(folder: Path, texts: Mapping[str, str], figures: Mapping[str, Figure]) -> list[str]:
    """Write a sweep's report, in place of an earlier one; the names of what was written."""
    from fedexp.reporting.figures import save

    written: list[str] = []
    with _as_far_as_possible(folder):
        folder.mkdir(parents=True, exist_ok=True)
        earlier = _written_before(folder)
        remove_leftovers(folder.glob(".*.tmp"), older_than=3600)  # others may be writing here now
        # First, so that a report that is cut short forgets nothing it wrote.
        names = [*texts, *figures]
        write_atomically(folder / _WRITTEN, to_json({"files": sorted({*earlier, *names})}))
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
            written.append(name)
        for name, figure in figures.items():
            save(figure, folder / name)
            written.append(name)
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
    return {*_OF_A_SWEEP} & {*map(str, files if isinstance(files, list) else ())}


@contextmanager
def _as_far_as_possible(folder: Path) -> Iterator[None]:
    """Say what cannot be written, and go on: figures are for reading in the first place."""
    try:
        yield
    except OSError as problem:
        log.warning("cannot write to %s: %s", folder, problem.strerror or problem)


def _draw(run: Run, folder: Path) -> list[Path]:
    # matplotlib is heavy, and a run without pictures does not need it.
    from fedexp.reporting.plots import write_run_plots

    return write_run_plots(run, folder)


def _page(run: Run, verdict: dict[str, Any]) -> str:
    # matplotlib and the page's templates are needed by nobody else.
    from fedexp.reporting.page import verdict_page

    return verdict_page(run, verdict)


def _headline(run: Run) -> str:
    done, planned = run.summary.get("rounds"), run.summary.get("rounds_planned")
    progress = "" if done is None else f", {done} of {planned or '?'} rounds"
    seconds = run.summary.get("seconds")
    time = "" if seconds is None else f" in {seconds:.1f} s"
    speed = run.summary.get("examples_per_second")
    rate = "" if speed is None else f" ({speed:,.0f} training examples/s)"
    stopped = run.summary.get("stopped")
    why = f"\nStopped early: {stopped}" if stopped else ""
    return f"{run.description or run.path}\nStatus: {run.status}{progress}{time}{rate}{why}"


def _figures(run: Run) -> pd.DataFrame:
    """Last figures and means of the last five evaluations, as text."""
    rows = []
    for part in ("test", "validation"):
        for span, figure in {"last": run.final, "mean of last 5": run.mean_last_5}.items():
            values = {heading: figure(part, metric) for metric, heading in _HEADINGS.items()}
            more = {heading: figure(part, metric) for metric, heading in _OF_SOME_TASKS.items()}
            values |= {heading: value for heading, value in more.items() if not math.isnan(value)}
            # The baseline is the same at any time.
            values["majority baseline"] = run.majority_baseline(part)
            if not math.isnan(values["accuracy"]) or span == "last":
                cells = {heading: _number(value) for heading, value in values.items()}
                rows.append({"part": part, "evaluation": span, **cells})
    return pd.DataFrame(rows)


def _over_clients(run: Run) -> str:
    """How evenly the accuracy is shared: mean, deviation, worst and best client, by name."""
    names = {
        "own_accuracy": "accuracy on the client's own patients",
        "own_mix_accuracy": "accuracy on the client's own class mix (estimate)",
        "accuracy": "accuracy",
    }
    parts = run.summary.get("final_over_clients") or {}
    rows = [
        {
            "part": part,
            "figure": names[metric],
            "mean ± standard deviation": spread(_float(over, "mean"), _float(over, "std")),
            "worst client": _number(_float(over, "min")) + _who(run, part, metric, "idxmin"),
            "best client": _number(_float(over, "max")) + _who(run, part, metric, "idxmax"),
        }
        for part, figures in parts.items()
        for metric, over in (figures or {}).items()
        if metric in names
    ]
    return to_markdown(pd.DataFrame(rows)) if rows else ""


def _who(run: Run, part: str, metric: str, which: str) -> str:
    """Which client it is, in brackets; "" where clients were not measured one by one."""
    values = run.per_client(part, metric)
    return "" if values.empty else f" ({run.client_name(int(getattr(values, which)()))})"


def _cost(run: Run) -> dict[str, object]:
    summary, timing = run.summary, run.timing
    cost: dict[str, object] = {
        f"seconds to {phase}": f"{timing[phase].sum():.1f}"
        for phase in ("train", "transmit", "aggregate", "evaluate")
        if phase in timing
    }
    for name, key in {
        "sent to the server": "bytes_up",
        "sent to the clients": "bytes_down",
    }.items():
        if summary.get(key) is not None:
            cost[name] = f"{summary[key] / 1e6:,.1f} MB"
    if summary.get("peak_memory_mb") is not None:
        cost["peak memory"] = f"{summary['peak_memory_mb']:,.0f} MB"
    if summary.get("parameters") is not None:
        cost["model parameters"] = f"{summary['parameters']:,}"
    return cost


def _provenance(run: Run) -> dict[str, object]:
    facts: dict[str, object] = {"seed": run.seed}
    for key in ("partition_hash", "git_commit", "versions", "hardware", "threads"):
        value = run.summary.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
        facts[key.replace("_", " ")] = value
    return facts


def _who_holds_what(partition: Mapping[str, Any]) -> dict[str, object]:
    """The numbers that `partition.json` says, and that clients are too many to be listed."""
    return {"clients": partition.get("clients"), **_measures(partition)}


def _measures(partition: Mapping[str, Any]) -> dict[str, object]:
    """The numbers among what `partition.json` says, nested ones by dotted name."""
    measures: dict[str, object] = {}
    for key, value in partition.items():
        if isinstance(value, Mapping):
            measures |= {f"{key}.{name}": item for name, item in _measures(value).items()}
        elif isinstance(value, int | float):
            measures[key] = f"{value:.4g}" if isinstance(value, float) else value
    return measures


def _facts(facts: Mapping[str, object]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _float(figures: Mapping[str, Any], key: str) -> float:
    value = figures.get(key)
    return math.nan if value is None else float(value)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
