"""The report of one run: `report.md`, `report.html`, and its pictures in `plots/`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedexp.core.files import write_atomically
from fedexp.core.plots import Plots
from fedexp.core.text import printable_lines, without_markup
from fedexp.reporting.adversary import adversary_facts
from fedexp.reporting.current import leave_stamp, stamp_of
from fedexp.reporting.divergence import parts_without_a_loss
from fedexp.reporting.leakage import leakage_report
from fedexp.reporting.membership import membership_table
from fedexp.reporting.page import commands
from fedexp.reporting.privacy import privacy_line, privacy_statement
from fedexp.reporting.results import Run, load_run
from fedexp.reporting.run_page import run_page
from fedexp.reporting.tables import spread, to_markdown
from fedexp.reporting.verdict import verdict_lines, verdict_markdown
from fedexp.reporting.writing import as_far_as_possible

_HEADINGS = {
    "accuracy": "accuracy",
    "majority_baseline": "majority baseline",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "loss": "loss",
}
_OF_SOME_TASKS = {"exact_match": "exact match"}
_OF_PARTITION = {  # what the words of partition.json say
    "n_clients": "clients",
    "held": "training examples that they hold",
    "left_out": "training examples that nobody holds",
    "examples_changed": "clients see other examples than the collection has",
    "skew.mean_total_variation_distance": "distance of a client's class mix from that of all "
    "(total variation, mean over the clients; 0 alike, 1 disjoint)",
    "skew.mean_effective_classes": "classes that a client holds in effect (exponential of the "
    "entropy, mean)",
    "skew.size_coefficient_of_variation": "spread of the clients' sizes (standard deviation over "
    "mean)",
}


def report_run(
    path: str | Path,
    plots: bool = True,
    folder: Path | None = None,
    also: Sequence[str] = (),
    style: str = "screen",
) -> str:
    """Write `report.md`, `report.html` and `plots/` into the run folder `path`.

    Returns the report in short.

    Args:
        path: the run folder.
        plots: draw pictures too, which takes most of the time.
        folder: where to write, if not into the run folder.
        also: vector formats of the pictures, `pdf` and `svg`, beside PNG.
        style: of the pictures, `screen` or `paper`.

    Raises:
        InputError: `path` is no run folder, one of its files cannot be read, or `folder` cannot be
            written to.
    """
    stamp = stamp_of(Path(path))  # first: of a run that goes on, the files grow while they are read
    run = load_run(path)
    return write_run_report(run, plots, run.path if folder is None else folder, stamp, also, style)


def write_run_report(
    run: Run,
    plots: bool,
    folder: Path,
    stamp: str,
    also: Sequence[str] = (),
    style: str = "screen",
) -> str:
    """The same of a run that was read, whose record had the stamp before."""
    pictures: list[Path] = []
    with as_far_as_possible(folder, folder != run.path):
        folder.mkdir(parents=True, exist_ok=True)
        pictures = _draw(run, folder / "plots", also, style) if plots else []
    of_adversary = adversary_facts(run)
    leaked, leaked_lines = leakage_report(run)
    membership = membership_table(run)
    verdict = run.verdict
    remarks = [str(remark) for remark in run.summary.get("remarks") or []]
    sections = {
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
    }

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
    pages = {
        "report.md": _markdown(run, sections, [p.relative_to(folder) for p in pictures]),
        "report.html": run_page(run, _headline(run).splitlines()[1], sections, pictures),
    }
    with as_far_as_possible(folder, folder != run.path):
        for name, content in pages.items():
            # A folder's name need not be text.
            written = content.encode(errors="backslashreplace")
            write_atomically(folder / name, written, durable=False)
        lines.append(f"Report: {folder / 'report.md'}, and for a browser report.html")
        asked = Plots.of(run.config.get("plots", True))
        if folder == run.path and (plots, style) == (asked.draw, asked.style):
            leave_stamp(folder, stamp, [*(folder / name for name in pages), *pictures])
    if pictures:
        names = ", ".join(picture.name for picture in pictures)
        lines.append(f"Plots:  {folder / 'plots'} ({names})")
    return printable_lines("\n".join(lines))


def _draw(run: Run, folder: Path, also: Sequence[str], style: str) -> list[Path]:
    # matplotlib is heavy, and a run without pictures does not need it.
    from fedexp.reporting.plots import write_run_plots

    return write_run_plots(run, folder, also, style)


def _markdown(run: Run, sections: Mapping[str, str], pictures: Sequence[Path]) -> str:
    """`report.md`; `pictures` lie below its folder."""
    blocks = [f"# {run.path.name}", _headline(run)]
    if run.error:
        blocks.append(f"**Error:** {run.error}")
    blocks += [f"## {heading}\n\n{text}" for heading, text in sections.items() if text]
    if said := commands(run):
        blocks[-1] += "\n\n" + "\n".join(f"    {command}" for command in said)
    page = without_markup("\n\n".join(blocks))
    shown = "\n\n".join(f"![{p.stem}]({p})" for p in pictures)
    return f"{page}\n\n## Plots\n\n{shown}\n" if shown else f"{page}\n"


def _headline(run: Run) -> str:
    done, planned = run.summary.get("rounds"), run.summary.get("rounds_planned")
    progress = "" if done is None else f", {done} of {planned or '?'} rounds"
    seconds = run.summary.get("seconds")
    time = "" if seconds is None else f" in {seconds:.1f} s"
    speed = run.summary.get("examples_per_second")
    rate = "" if speed is None else f" ({speed:,.0f} training examples/s)"
    stopped = run.summary.get("stopped")
    why = f"\nStopped early: {stopped}" if stopped else ""
    lost = parts_without_a_loss(run)
    end = (
        f"\nDiverged: the loss on {' and '.join(lost)} is no finite number at the end"
        if lost
        else ""
    )
    return f"{run.description or run.path}\nStatus: {run.status}{progress}{time}{rate}{why}{end}"


def _figures(run: Run) -> pd.DataFrame:
    """Last figures, means of the last five evaluations and of the last rounds, as text."""
    rows = []
    sizes = run.summary.get("examples_of") or {}
    for part in (part for part in ("test", "validation") if sizes.get(part, 1)):
        spans = {"last": run.final, "mean of last 5": run.mean_last_5}
        if rounds := run.config.get("mean_last_rounds"):
            spans[f"mean of last {rounds} rounds"] = run.mean_last_rounds
        for span, figure in spans.items():
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
            sent = summary[key]
            cost[name] = f"{sent / 1e3:,.1f} kB" if 0 < sent < 1e6 else f"{sent / 1e6:,.1f} MB"
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
    measures = {_OF_PARTITION.get(key, key): value for key, value in _measures(partition).items()}
    return {"who holds what": partition.get("clients"), **measures}


def _measures(partition: Mapping[str, Any]) -> dict[str, object]:
    """The numbers among what `partition.json` says, nested ones by dotted name."""
    measures: dict[str, object] = {}
    for key, value in partition.items():
        if isinstance(value, Mapping):
            measures |= {f"{key}.{name}": item for name, item in _measures(value).items()}
        elif isinstance(value, bool):
            measures[key] = "yes" if value else "no"
        elif isinstance(value, int | float):
            measures[key] = f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
    return measures


def _facts(facts: Mapping[str, object]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _float(figures: Mapping[str, Any], key: str) -> float:
    value = figures.get(key)
    return math.nan if value is None else float(value)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
