"""What a run says about its adversary: how far it got, and whom the server caught or dropped.

A caught update is a malicious client's that the detector flagged, a missed one it did not flag, a
false alarm an honest client's that it flagged. Updates that were dropped as unusable were never
scored. What a detector drops or weighs less without a flag is none of these, and is counted apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import pandas as pd

from fedexp.reporting.area import area_under_curve
from fedexp.reporting.results import Run

DETECTOR_RATES = ("detector_auc", "caught", "false_alarms")
_MOST_NAMED = 12  # clients or rounds in one line


@final
@dataclass(frozen=True)
class Detection:
    """What a detector made of all updates of a run that it had an opinion on.

    Attributes:
        scores: one row an update, columns score (larger is more suspicious), malicious, flagged.
        thresholds: the threshold of every round that recorded one.
    """

    scores: pd.DataFrame
    thresholds: pd.Series[float]

    @property
    def caught(self) -> int:
        """How many malicious updates were flagged."""
        return int((self.scores["malicious"] & self.scores["flagged"]).sum())

    @property
    def false_alarms(self) -> int:
        """How many honest updates were flagged."""
        return int((~self.scores["malicious"] & self.scores["flagged"]).sum())

    @property
    def malicious(self) -> int:
        """How many updates came from malicious clients."""
        return int(self.scores["malicious"].sum())

    @property
    def honest(self) -> int:
        """How many updates came from honest clients."""
        return len(self.scores) - self.malicious

    @property
    def auc(self) -> float:
        """How often a malicious update has a higher score than an honest one, of any rounds."""
        scored = self.scores
        malicious = scored["malicious"].to_numpy(dtype=bool)
        return area_under_curve(malicious, scored["score"].to_numpy(dtype=np.float64))


def detection(run: Run) -> Detection | None:
    """What the detector said, update by update; None if there was none or it had no opinion."""
    said = run.of_clients("update", ("score", "malicious", "flagged"))
    # A run without an adversary does not say of every update that it was honest. A score that is
    # not finite is recorded as no number, but that it was flagged is recorded all the same.
    scored = [of for of in said.values() if not math.isnan(of.get("flagged", math.nan))]
    if not any("flagged" in of for of in said.values()):
        return None
    malicious = np.array([of.get("malicious", 0.0) for of in scored])
    scores = pd.DataFrame(
        {
            "score": np.array([of.get("score", math.nan) for of in scored], dtype=np.float64),
            "malicious": np.nan_to_num(malicious).astype(bool),
            "flagged": np.array([of["flagged"] for of in scored]).astype(bool),
        }
    )
    return Detection(scores, run.curve("round", "threshold").dropna())


def detector_rates(run: Run) -> dict[str, float]:
    """AUC, share of the malicious updates caught, and share of the honest ones flagged; or NaN."""
    found = None if run.choices.get("detector", "none") == "none" else detection(run)
    if found is None:
        return dict.fromkeys(DETECTOR_RATES, math.nan)
    caught = found.caught / found.malicious if found.malicious else math.nan
    false_alarms = found.false_alarms / found.honest if found.honest else math.nan
    return dict(zip(DETECTOR_RATES, (found.auc, caught, false_alarms), strict=True))


def attack_success(run: Run) -> pd.Series[float]:
    """The share of the answers that the adversary wants, over the rounds evaluated."""
    return run.curve("attack", "success").dropna()


def first_attacked_round(run: Run) -> int | None:
    """The first round in which a malicious client took part; None if none ever did."""
    malicious = run.curve("round", "malicious")
    attacked = malicious.index[malicious.to_numpy() > 0]
    return int(attacked[0]) if len(attacked) else None


def adversary_facts(run: Run) -> dict[str, str]:
    """What a reader has to know of attack and defence, by name; empty if nothing happened."""
    of_attack = {**_success(run), **_exceeded(run), **_detector(run)}
    of_attack |= {**_unflagged(run), **_silent(run)}
    return {**of_attack, **_dropped(run), **_left(run), **_skipped(run)}


def _success(run: Run) -> dict[str, str]:
    curve = attack_success(run)
    if curve.empty:
        return {}
    last, mean = curve.iloc[-1], curve.iloc[-5:].mean()
    return {"attack success": f"{last:.4f} last, {mean:.4f} mean of last 5"}


def _exceeded(run: Run) -> dict[str, str]:
    """Rounds with more malicious clients than the rule, or what mixes before it, counted on."""
    mixing = run.config.get("pre_aggregation") or {}
    parts = [run.config.get("aggregator") or {}, *(m for m in mixing.values() if m)]
    counted = [part["assumed_malicious"] for part in parts if "assumed_malicious" in part]
    malicious = run.curve("round", "malicious")
    if not counted or not (malicious > min(counted)).any():
        return {}
    above = int((malicious > min(counted)).sum())
    what = f"rounds with more attackers than the {min(counted)} assumed"
    return {what: f"{above:,} of {len(malicious):,}"}


def _detector(run: Run) -> dict[str, str]:
    found = detection(run)
    if found is None:
        return {}
    missed = found.malicious - found.caught
    facts = {
        "caught": _of(found.caught, found.malicious, "malicious updates"),
        "missed": _of(missed, found.malicious, "malicious updates"),
        "false alarms": _of(found.false_alarms, found.honest, "honest updates"),
    }
    if not math.isnan(found.auc):
        facts["AUC of the detector's scores"] = f"{found.auc:.4f} (all rounds together)"
    return facts


def _unflagged(run: Run) -> dict[str, str]:
    """Rows that the detector kept from the step, or made count less, and did not flag."""
    said = run.of_clients("update", ("trust_unflagged", "malicious"))
    rows = [of for of in said.values() if not math.isnan(of.get("trust_unflagged", math.nan))]
    if not rows:
        return {}
    malicious = sum(of.get("malicious", 0.0) > 0 for of in rows)
    dropped = sum(of["trust_unflagged"] == 0 for of in rows)
    what = f"{len(rows):,}, {dropped:,} of them dropped: {malicious:,} of malicious clients, "
    what += f"{len(rows) - malicious:,} of honest ones (neither caught nor false alarms)"
    return {"updates the detector acted on without a flag": what}


def _silent(run: Run) -> dict[str, str]:
    """A detector that had no score for anybody, which is not one that found nobody."""
    detector = run.choices.get("detector", "none")
    rounds = len(run.curve("round", "clients"))
    if detector == "none" or detection(run) is not None or not rounds:
        return {}
    return {f"detector {detector}": f"no opinion of any update in {rounds:,} rounds"}


def _dropped(run: Run) -> dict[str, str]:
    rows = run.metrics
    rows = rows[(rows["scope"] == "update") & (rows["metric"] == "dropped")]
    counts = rows[rows["value"] > 0].groupby("client", observed=True)["value"].sum()
    total = int(counts.sum() or run.curve("round", "dropped").sum())
    if not total:
        return {}
    by_client = counts.astype("int64").sort_values(ascending=False, kind="stable")
    named = [f"{_called(run, str(client))}: {count}" for client, count in by_client.items()]
    return {"rows dropped as unusable": f"{total:,}" + _in_brackets(named, "clients")}


def _called(run: Run, client: str) -> str:
    return run.client_name(int(client)) if client.isdecimal() else f"client {client}"


def _left(run: Run) -> dict[str, str]:
    """How many updates never reached the server, as their clients left the round before."""
    left = int(run.curve("round", "dropped_out").sum())
    asked = int(run.curve("round", "clients").sum())
    return {"clients that left a round": _of(left, asked, "that took part")} if left else {}


def _skipped(run: Run) -> dict[str, str]:
    skipped = run.curve("round", "skipped")
    rounds = [str(number) for number in skipped.index[skipped.to_numpy() > 0]]
    if not rounds:
        return {}
    return {"rounds that moved nothing": f"{len(rounds):,}" + _in_brackets(rounds, "rounds")}


def _of(count: int, total: int, what: str) -> str:
    """A count, what it is of, and the rate.

    >>> _of(3, 60, "honest updates"), _of(0, 0, "malicious updates")
    ('3 of 60 honest updates (5.0 %)', '0 of 0 malicious updates')
    """
    rate = f" ({100 * count / total:.1f} %)" if total else ""
    return f"{count:,} of {total:,} {what}{rate}"


def _in_brackets(named: list[str], what: str) -> str:
    if not named:
        return ""
    more = len(named) - _MOST_NAMED
    rest = f" and {more:,} more {what}" if more > 0 else ""
    return f" ({', '.join(named[:_MOST_NAMED])}{rest})"
