"""What federation is worth to every site, in words and tables, from `verdict.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pandas as pd

from fedexp.reporting.tables import to_markdown
from fedexp.run_folder.verdict import is_above, is_below

ROLES = ("alone", "federated", "pooled", "fine-tuned")
METRICS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "auc": "AUC",
    "pr_auc": "PR-AUC",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "macro_f1": "macro-F1",
    "quadratic_kappa": "quadratic kappa",
}
NOT_DEFINED = "-"


@final
@dataclass(frozen=True)
class Site:
    """One site of a verdict."""

    name: str
    of: Mapping[str, Any]

    def interval(self, role: str, metric: str) -> Sequence[float | None] | None:
        """[value, low, high]; None where it was not measured."""
        found: Sequence[float | None] | None = (self.of["roles"].get(role) or {}).get(metric)
        return found

    @property
    def gain(self) -> Sequence[float | None] | None:
        """Of the federation over training alone."""
        found: Sequence[float | None] | None = self.of["gain"].get("federated")
        return found

    @property
    def outcome(self) -> str:
        """gains, is harmed, no difference that these patients could show, or not measured."""
        if self.gain is None or self.gain[0] is None:
            return "not measured"
        if is_below(self.gain[2]):
            return "is harmed"
        return "gains" if is_above(self.gain[1]) else "cannot be told"

    @property
    def useless(self) -> bool:
        """Whether the federation's model ranks this site's patients worse than chance.

        By the whole interval; where resamples all agree there is none, and every pair is wrong.
        """
        auc = self.interval("federated", "auc")
        if auc is None:
            return False
        return auc[0] == 0 if auc[2] is None else auc[2] < 0.5


def sites_of(verdict: Mapping[str, Any]) -> list[Site]:
    """The sites in their order."""
    return [Site(name, of) for name, of in verdict["sites"].items()]


def answer(verdict: Mapping[str, Any]) -> str:
    """The whole verdict in a sentence or two."""
    sites = sites_of(verdict)
    by = {
        outcome: [site.name for site in sites if site.outcome == outcome]
        for outcome in ("gains", "is harmed", "cannot be told", "not measured")
    }
    parts = []
    if by["gains"]:
        parts.append(f"{_and(by['gains'])} gain{'s' * (len(by['gains']) == 1)} by federation")
    if by["is harmed"]:
        are = "is" if len(by["is harmed"]) == 1 else "are"
        parts.append(f"{_and(by['is harmed'])} {are} harmed")
    if by["cannot be told"]:
        parts.append(f"for {_and(by['cannot be told'])} these patients cannot tell")
    if by["not measured"]:
        parts.append(f"{_and(by['not measured'])} could not be measured")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


def sentences(verdict: Mapping[str, Any]) -> list[str]:
    """What a person should know of each site that gains or is harmed, the harmed first."""
    said = []
    order = ("is harmed", "gains")
    for site in sorted(
        (s for s in sites_of(verdict) if s.outcome in order), key=lambda s: order.index(s.outcome)
    ):
        federated, alone = site.interval("federated", "accuracy"), site.interval(*_ALONE)
        if not federated or not alone or site.gain is None:
            continue
        text = (
            f"{site.name} {site.outcome}: the federation's model is right on "
            f"{percent(federated[0])} of its own {site.of['patients']} patients, its own model on "
            f"{percent(alone[0])}, a difference of {points(site.gain)}"
        )
        if site.useless:
            auc = site.interval("federated", "auc")
            assert auc is not None
            text += f"; with an AUC of {auc[0]:.2f} it is worse than useless there"
        said.append(text + ".")
    return said


_ALONE = ("alone", "accuracy")


def accuracy_table(verdict: Mapping[str, Any]) -> pd.DataFrame:
    """A row a site: n, the accuracy of every role, what is gained, and for whom."""
    rows = []
    for site in sites_of(verdict):
        row: dict[str, str] = {"site": site.name, "patients": str(site.of["patients"])}
        if site.of["n"] != site.of["patients"]:
            row["patients"] += f" ({site.of['n']} examples)"
        for role in ROLES:
            row[role] = cell(site.interval(role, "accuracy"))
        row["gain over alone"] = points(site.gain) if site.gain else NOT_DEFINED
        row["verdict"] = site.outcome
        rows.append(row)
    return pd.DataFrame(rows)


def metrics_table(verdict: Mapping[str, Any], role: str = "federated") -> pd.DataFrame:
    """A row a site: the figures that medicine uses, of one role's model."""
    measured = [
        metric
        for metric in METRICS
        if any(site.interval(role, metric) for site in sites_of(verdict))
    ]
    return pd.DataFrame(
        [
            {
                "site": site.name,
                **{METRICS[m]: cell(site.interval(role, m), percent=False) for m in measured},
            }
            for site in sites_of(verdict)
        ]
    )


def left_out_table(verdict: Mapping[str, Any]) -> pd.DataFrame:
    """A row a site: what the patients of the others lose without it."""
    return pd.DataFrame(
        [
            {"without": name, "the others lose": points(lost)}
            for name, lost in verdict["left_out"].items()
        ]
    )


def attacked_table(verdict: Mapping[str, Any]) -> pd.DataFrame:
    """A row a rule: what honest sites keep while others flip their updates."""
    return pd.DataFrame(
        [
            {
                "rule": rule,
                "sites that flip": ", ".join(of["dishonest"]),
                "honest sites, nobody flips": percent(of.get("without_attack")),
                "honest sites, attacked": percent(of.get("honest_accuracy")),
            }
            for rule, of in verdict["attacked"].items()
        ]
    )


def caveats(verdict: Mapping[str, Any]) -> list[str]:
    """What these figures cannot tell."""
    said = [
        "Accuracy is the share of examples answered rightly, mean [95 % interval] over the site's "
        "own test patients, where images of one patient count as one. No interval stands where "
        "these patients are too few or too much alike to give one.",
        "Gain is the paired difference to training alone in percentage points; who gains or is "
        "harmed is said where its interval leaves out 0. With several sites, one in twenty "
        "intervals misses by chance.",
        "One seed: how the result depends on initial weights and on the split is seen by a sweep "
        "over seeds.",
    ]
    if verdict["patients"] != "own":
        said.append(
            "Estimate: nobody's patients are known in these data, so that test examples were drawn "
            "from everybody's in each client's mix of classes."
        )
    for role, why in verdict["not_measured"].items():
        said.append(f"{role}: not measured ({why}).")
    return said


def verdict_markdown(verdict: Mapping[str, Any]) -> str:
    """The section of a run's report."""
    blocks = [answer(verdict), *(f"- {s}" for s in sentences(verdict))]
    blocks = ["\n".join(blocks), to_markdown(accuracy_table(verdict))]
    for heading, table in {
        "The federation's model on each site's own patients": metrics_table(verdict),
        "What leaving a site out costs the others": left_out_table(verdict),
        "When some sites flip their updates": attacked_table(verdict),
    }.items():
        if len(table):
            blocks.append(f"### {heading}\n\n{to_markdown(table)}")
    blocks.append("\n".join(f"- {caveat}" for caveat in caveats(verdict)))
    return "\n\n".join(blocks)


def verdict_lines(verdict: Mapping[str, Any]) -> str:
    """The same for a terminal, in short."""
    table = accuracy_table(verdict).to_string(index=False)
    lines = ["Verdict: " + answer(verdict), *sentences(verdict), "", table]
    if len(attacked := attacked_table(verdict)):
        lines += ["", attacked.to_string(index=False)]
    return "\n".join(lines)


def cell(interval: Sequence[float | None] | None, percent: bool = True) -> str:
    """A figure with its interval.

    >>> cell([0.5, 0.25, 0.75]), cell([0.5, None, None], percent=False)
    ('50 % [25, 75]', '0.50')
    """
    if interval is None:
        return NOT_DEFINED
    value, low, high = interval
    if value is None:
        return NOT_DEFINED
    if low is None or high is None:
        return f"{value:.0%}".replace("%", " %") if percent else f"{value:.2f}"
    if percent:
        return f"{100 * value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def points(interval: Sequence[float | None]) -> str:
    """A difference in percentage points with its interval.

    >>> points([-0.54, -0.6, -0.4])
    '-54 [-60, -40]'
    """
    value, low, high = interval
    if value is None:
        return NOT_DEFINED
    if low is None or high is None:
        return f"{100 * value:+.0f}"
    return f"{100 * value:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"


def percent(value: float | None) -> str:
    """A share.

    >>> percent(0.17)
    '17 %'
    """
    return NOT_DEFINED if value is None else f"{100 * value:.0f} %"


def _and(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> _and(["North", "South", "West"])
    'North, South and West'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
