"""The verdict at the head of a run's page: for a hospital's board, the answer first."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedexp.reporting import verdict as words

_WORDS = {
    "gains": "Gains by federation",
    "is harmed": "Is harmed by federation",
    "cannot be told": "Cannot be told from these patients",
    "not measured": "Not measured",
}


def verdict_context(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What the template says of a verdict; empty where there is none."""
    if not verdict:
        return {}
    from fedexp.reporting.figures import png  # matplotlib is needed by nobody else
    from fedexp.reporting.verdict_plots import verdict_figure

    figure = verdict_figure(verdict)
    sections = [
        _section(
            "Right answers on each site's own patients",
            words.accuracy_table(verdict),
            "Four ways to train the same model with the same work: each site alone, all together "
            "without sharing data (federated), all data in one place (pooled), and the federated "
            "model trained on at home (fine-tuned).",
        ),
        _section(
            "The federation's model, site by site",
            words.metrics_table(verdict),
            "What is not about one illness but several classes is averaged over them, each class "
            "against the rest.",
        ),
        _section(
            "What leaving a site out costs the others",
            words.left_out_table(verdict),
            "The federation trained once more without the site; percentage points of right answers "
            "that the patients of the other sites lose.",
        ),
        _section(
            "When some sites flip their updates",
            words.attacked_table(verdict),
            "Mean accuracy of the honest sites, each on its own patients, by the server's rule.",
        ),
    ]
    return {
        "answer": words.answer(verdict),
        "cards": [_card(site) for site in words.sites_of(verdict)],
        "picture": "" if figure is None else base64.b64encode(png(figure)).decode(),
        "sections": [section for section in sections if section["rows"]],
        "caveats": words.caveats(verdict),
    }


def _card(site: words.Site) -> dict[str, str]:
    federated, alone = site.interval("federated", "accuracy"), site.interval("alone", "accuracy")
    detail = f"{site.of['patients']} test patients"
    if federated and alone:
        detail = (
            f"Right on {words.percent(federated[0])} of its own patients, alone on "
            f"{words.percent(alone[0])} ({detail})."
        )
    if site.gain:
        detail += f" Difference: {words.points(site.gain)} points."
    if site.useless:
        detail += " Its ranking of these patients is worse than chance: worse than useless."
    kind = {"gains": "gains", "is harmed": "harmed"}.get(site.outcome, "")
    return {"name": site.name, "words": _WORDS[site.outcome], "detail": detail, "kind": kind}


def _section(heading: str, table: pd.DataFrame, text: str) -> dict[str, Any]:
    rows = table.astype(str).to_numpy().tolist() if len(table) else []
    return {"heading": heading, "text": text, "columns": list(table.columns), "rows": rows}
