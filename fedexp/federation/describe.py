"""What is written down about a round: rows of `metrics.csv`, and sentences for a person.

Scope `round` is about the round as a whole, `update` about the row that a client sent, `train`
about a client's local training.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fedexp.core.metric import Metric
from fedexp.core.types import Delivery, Updates
from fedexp.federation.server import Receipt


def describe(
    round: int,
    sent: Updates,
    delivery: Delivery,
    malicious: np.ndarray | None,
    receipt: Receipt,
) -> list[Metric]:
    """Rows about the round, about every update and about every client's training.

    Args:
        round: rounds completed with this one.
        sent: what the clients sent, malicious rows included.
        delivery: what arrived of it.
        malicious: `[n]` bool, who lied; None in a run without an adversary.
        receipt: what the server made of it.
    """
    attackers = np.zeros(len(sent), dtype=bool) if malicious is None else malicious
    received = delivery.updates
    lying = dict(zip(received.client_ids, malicious_in(delivery, sent, attackers), strict=True))
    about = {
        "clients": len(sent),
        "malicious": int(attackers.sum()),
        "examples": sent.processed,
        "dropped": sum(1 for complaint in receipt.complaints if complaint),
        "skipped": int(bool(receipt.skipped)),
        "step_norm": float(receipt.step.norm()),
        **_caught(lying, receipt),
        **_protocol(delivery),
    }
    rows = [Metric(round, "round", "all", name, float(value)) for name, value in about.items()]
    if malicious is not None:
        rows += [Metric(round, "update", str(c), "malicious", float(m)) for c, m in lying.items()]
    rows += [Metric(round, "update", str(c), m, v) for c, m, v in _updates(received, receipt)]
    return rows + list(_training(round, sent))


def malicious_in(delivery: Delivery, sent: Updates, malicious: np.ndarray) -> tuple[bool, ...]:
    """For every row that arrived, whether a malicious client is in it."""
    attackers = {c for c, lies in zip(sent.client_ids, malicious.tolist(), strict=True) if lies}
    return tuple(not attackers.isdisjoint(members) for members in delivery.members)


def traffic(round: int, sent_out: int | None, delivery: Delivery) -> list[Metric]:
    """Bytes sent either way.

    Args:
        round: rounds completed with this one.
        sent_out: bytes of the models, and of what else went out with them, to all clients together;
            None where nothing travels.
        delivery: what came back, and what the channel itself cost.
    """
    down, up = (0, 0) if sent_out is None else (sent_out + delivery.bytes_down, delivery.bytes_up)
    return [
        Metric(round, "round", "all", "bytes_down", float(down)),
        Metric(round, "round", "all", "bytes_up", float(up)),
    ]


def remarks(delivery: Delivery, receipt: Receipt) -> tuple[str, ...]:
    """Sentences about what did not go as planned."""
    sentences = [*_departures(delivery), *dict.fromkeys(delivery.lost), *_cuts(delivery)]
    for complaint in dict.fromkeys(c for c in receipt.complaints if c):
        pairs = zip(delivery.updates.client_ids, receipt.complaints, strict=True)
        clients = ", ".join(str(client) for client, c in pairs if c == complaint)
        sentences.append(f"dropped what client {clients} sent: {' '.join(complaint.split())}")
    if receipt.skipped:
        sentences.append(f"the round moved nothing: {receipt.skipped}")
    return tuple(sentences)


def _departures(delivery: Delivery) -> Iterator[str]:
    """Those planned by their turn alone, so that they are told once; others by name and reason."""
    for turn in dict.fromkeys(turn for _, turn in delivery.dropped if ": " not in turn):
        yield f"clients left before they could {turn}"
    for client, turn in delivery.dropped:
        if ": " in turn:
            yield f"client {client} left before it could {turn}"


def _cuts(delivery: Delivery) -> Iterator[str]:
    """Updates too large for the channel. The count is in `metrics.csv`; here its size is enough."""
    if delivery.clipped:
        # A sentence that changes every round would be told every round.
        size = 10 ** (len(str(delivery.clipped)) - 1)
        yield (
            f"the channel cut {size:,} or more coordinates of the updates to what it can carry; "
            "see channel.encoder.value_range (with Skellam noise: clip_norm)"
        )


def _protocol(delivery: Delivery) -> dict[str, float]:
    """How the transport went, where it has a protocol of its own, or somebody left."""
    if not (delivery.seconds or delivery.dropped or delivery.lost or delivery.clipped):
        return {}
    return {
        "dropped_out": len(delivery.dropped),
        "groups_lost": len(delivery.lost),
        "clipped_coordinates": delivery.clipped,
    }


def _updates(received: Updates, receipt: Receipt) -> Iterator[tuple[int, str, float]]:
    """(client, metric, value) about the rows as they arrived."""
    norms = torch.linalg.vector_norm(received.matrix.flatten(1), dim=1).tolist()
    rows = zip(received.client_ids, norms, receipt.complaints, strict=True)
    for client, norm, complaint in rows:
        yield client, "norm", norm
        if complaint:
            yield client, "dropped", 1.0
    if _has_an_opinion(receipt):
        verdict = receipt.verdict
        pairs = zip(verdict.scores.tolist(), verdict.flagged.tolist(), strict=True)
        for client, (score, flagged) in zip(receipt.scored, pairs, strict=True):
            yield client, "score", score
            yield client, "flagged", float(flagged)
    yield from _unflagged(receipt)


def _unflagged(receipt: Receipt) -> Iterator[tuple[int, str, float]]:
    """The trust in rows that lose by what a detector does without calling them malicious."""
    verdict = receipt.verdict
    unsaid = (verdict.trust < 1) & ~verdict.flagged
    for client, trust, so in zip(
        receipt.scored, verdict.trust.tolist(), unsaid.tolist(), strict=True
    ):
        if so:
            yield client, "trust_unflagged", trust


def _caught(lying: dict[int, bool], receipt: Receipt) -> dict[str, float]:
    """How the detector did, where it has an opinion."""
    if not _has_an_opinion(receipt):
        return {}
    flagged = zip(receipt.scored, receipt.verdict.flagged.tolist(), strict=True)
    outcomes = [(lying[client], flag) for client, flag in flagged]
    return {
        "caught": outcomes.count((True, True)),
        "missed": outcomes.count((True, False)),
        "false_alarms": outcomes.count((False, True)),
        "threshold": receipt.verdict.threshold,
    }


def _has_an_opinion(receipt: Receipt) -> bool:
    return not bool(receipt.verdict.scores.isnan().all())


def _training(round: int, received: Updates) -> Iterator[Metric]:
    """Every client's own figures, and their means weighted by examples."""
    for client, metrics in zip(received.client_ids, received.metrics, strict=True):
        for name, value in metrics.items():
            yield Metric(round, "train", str(client), name, value)
    if len(received):
        weights = (received.num_examples / received.num_examples.sum()).tolist()
        for name in received.metrics[0]:
            if not all(name in metrics for metrics in received.metrics):
                continue  # it is not what all of them measure
            pairs = zip(weights, received.metrics, strict=True)
            mean = sum(weight * metrics[name] for weight, metrics in pairs)
            yield Metric(round, "train", "all", name, mean)
