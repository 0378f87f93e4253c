"""Validation, detector, mixing and rule in one: what becomes of rows, followed by hand."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fedexp.aggregation.krum import Krum
from fedexp.aggregation.mean import Mean
from fedexp.aggregation.server_optimizers import SGD
from fedexp.channel.plain import Plain
from fedexp.core.checks import InputError
from fedexp.core.round_record import ServerState
from fedexp.core.types import Updates, Verdict
from fedexp.detection.none import NoDetector
from fedexp.federation.algorithms.fedavg import FedAvg
from fedexp.federation.describe import describe, remarks, traffic
from fedexp.federation.server import Server
from fedexp.federation.update_validation import NoValidation, StandardValidation
from fedexp.privacy.none import NoPrivacy

NAN = math.nan


def updates(rows, examples=None):
    n = len(rows)
    losses = tuple({"loss": float(k)} for k in range(n))
    matrix = torch.tensor(rows).reshape(n, -1)
    weights = torch.tensor(examples or [1.0] * n, dtype=torch.float64)
    return Updates(matrix, tuple(range(10, 10 + n)), weights, 7, losses)


@dataclass
class Suspects:
    """A detector whose opinion is known: scores by client, threshold 1, trust as given."""

    scores: dict
    trust: dict

    def init(self, d):
        return {"calls": torch.zeros(1)}

    def __call__(self, updates, state, rng):
        scores = torch.tensor([self.scores[c] for c in updates.client_ids], dtype=torch.float64)
        trust = torch.tensor([self.trust.get(c, 1.0) for c in updates.client_ids]).double()
        return Verdict(scores, 1.0, trust), {"calls": state["calls"] + 1}


class Doubles:
    def __call__(self, updates, rng):
        return updates.with_matrix(2 * updates.matrix)


class AddsADraw:
    def __call__(self, updates, rng):
        return updates.with_matrix(updates.matrix + rng.random())


def server(**changes):
    parts = {
        "update_validation": StandardValidation(None),
        "privacy": NoPrivacy(),
        "detector": NoDetector(),
        "pre_aggregation": (),
        "aggregator": Mean("examples"),
        "optimizer": SGD(1.0),
        "min_clients": 1,
        "algorithm": FedAvg(),
        "n_clients": 4,
    }
    return Server(**{**parts, **changes})


def arrived(given):
    return Plain().transmit(given, streams("channel"))


def about_round(number, given, lies, receipt):
    return describe(number, given, arrived(given), lies, receipt)


def streams(purpose):
    return np.random.default_rng(len(purpose))


def state(d=1, **fields):
    return ServerState(3, torch.zeros(d), **fields)


def test_clean_rows_are_averaged_and_the_step_is_taken():
    after, receipt = server()(updates([[1.0, 0.0], [3.0, 4.0]]), state(2), streams)
    assert after.params.tolist() == receipt.step.tolist() == [2.0, 2.0]
    assert receipt.complaints == ("", "")
    assert receipt.skipped == ""
    assert after.failed_rounds == 0
    assert after.round == 3  # counting is the loop's business


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_dropped_and_named(bad):
    given = updates([[1.0, 1.0], [2.0, bad], [3.0, 3.0]])
    after, receipt = server()(given, state(2), streams)
    assert after.params.tolist() == [2.0, 2.0]
    assert receipt.complaints == ("", "not finite", "")
    assert remarks(arrived(given), receipt) == ("dropped what client 11 sent: not finite",)


def test_without_hygiene_a_nan_reaches_the_rule():
    after, _ = server(update_validation=NoValidation())(updates([[1.0], [NAN]]), state(), streams)
    assert after.params.isnan().all()


def test_a_row_longer_than_the_cap_is_dropped_and_the_cap_itself_passes():
    given = updates([[3.0, 4.0], [3.0, 4.001]])
    _, receipt = server(update_validation=StandardValidation(5.0))(given, state(2), streams)
    assert receipt.complaints[0] == ""
    assert receipt.complaints[1].startswith("norm 5.001 above norm_cap=5")


def test_rows_of_another_size_or_type_are_dropped_not_added():
    _, receipt = server()(updates([[1.0, 2.0]]), state(3), streams)
    assert receipt.complaints == ("2 numbers instead of 3",)
    assert receipt.skipped
    wide = updates([[1.0]])
    _, receipt = server()(wide.with_matrix(wide.matrix.double()), state(), streams)
    assert receipt.complaints == ("torch.float64 instead of torch.float32",)


def test_a_hygiene_with_an_impossible_cap_is_refused():
    with pytest.raises(InputError, match=r"norm_cap=0\.0: "):
        StandardValidation(0.0)


def test_cut_coordinates_are_told_by_their_order_of_size_so_that_it_is_told_once():
    given = updates([[1.0], [2.0]])
    _, receipt = server()(given, state(), streams)
    said = {remarks(replace(arrived(given), clipped=n), receipt) for n in (1000, 2184, 9999)}
    ((sentence,),) = said
    assert sentence.startswith("the channel cut 1,000 or more coordinates of the updates")
    assert "channel.encoder.value_range" in sentence
    assert remarks(arrived(given), receipt) == ()


def test_too_few_usable_rows_move_nothing_and_say_why():
    before = state(aggregator={"kept": torch.ones(1)}, failed_rounds=4)
    given = updates([[1.0], [NAN]])
    after, receipt = server(min_clients=2)(given, before, streams)
    assert torch.equal(after.params, before.params)
    assert after.aggregator is before.aggregator
    assert after.failed_rounds == 5
    assert receipt.skipped == "it had 1 of the 2 updates needed (min_clients)"
    assert remarks(arrived(given), receipt)[-1] == f"the round moved nothing: {receipt.skipped}"


def test_a_rule_that_refuses_what_is_left_moves_nothing_and_says_why():
    rule = Krum(1, selected=1)  # needs 5
    after, receipt = server(aggregator=rule)(
        updates([[1.0], [1.0], [2.0], [NAN], [1.0]]), state(), streams
    )
    assert after.params.tolist() == [0.0]
    assert "needs at least 2 x 1 + 3 clients, but 4 are in" in receipt.skipped


def test_a_detector_that_refuses_so_few_rows_moves_nothing_and_says_why():
    class Refuses(Suspects):
        def __call__(self, updates, state, rng):
            raise InputError("needs 5 clients", "assumed_malicious", 2)

    before = state(detector={"calls": torch.zeros(1)})
    after, receipt = server(detector=Refuses({}, {}))(updates([[1.0], [2.0]]), before, streams)
    assert after.params.tolist() == [0.0]
    assert after.detector["calls"].item() == 0
    assert after.failed_rounds == 1
    assert receipt.skipped == "the detector refused: assumed_malicious=2: needs 5 clients"
    assert receipt.verdict.scores.isnan().tolist() == [True, True]


def test_nobody_at_all_moves_nothing():
    nobody = Updates(torch.empty(0, 2), (), torch.empty(0, dtype=torch.float64))
    after, receipt = server(detector=Suspects({}, {}))(nobody, state(2), streams)
    assert after.params.tolist() == [0.0, 0.0]
    assert receipt.skipped


def test_what_the_detector_flags_is_dropped_or_weighs_less():
    given = updates([[1.0], [5.0], [9.0]])
    scores = {10: 0.1, 11: 2.0, 12: 0.9}
    after, receipt = server(detector=Suspects(scores, {11: 0.0}))(
        given, state(detector={"calls": torch.zeros(1)}), streams
    )
    assert after.params.tolist() == [5.0]  # (1 + 9) / 2
    assert after.detector["calls"].item() == 1
    assert receipt.verdict.flagged.tolist() == [False, True, False]
    halved = server(detector=Suspects(scores, {11: 0.5}))
    after, _ = halved(given, state(detector={"calls": torch.zeros(1)}), streams)
    assert after.params.item() == pytest.approx((1 + 0.5 * 5 + 9) / 2.5)


def test_the_detector_sees_only_rows_that_passed_the_hygiene():
    given = updates([[NAN], [5.0]])
    detector = Suspects({11: 0.0}, {})  # a look at client 10 would be a KeyError
    _, receipt = server(detector=detector)(
        given, state(detector={"calls": torch.zeros(1)}), streams
    )
    assert receipt.scored == (11,)


def test_mixers_are_applied_in_their_order_before_the_rule():
    draw = streams("rule").random()
    first = server(pre_aggregation=(Doubles(), AddsADraw()))
    after, _ = first(updates([[1.0]]), state(), streams)
    assert after.params.item() == pytest.approx(2 + draw)
    second = server(pre_aggregation=(AddsADraw(), Doubles()))
    after, _ = second(updates([[1.0]]), state(), streams)
    assert after.params.item() == pytest.approx(2 * (1 + draw))


def test_the_record_holds_every_update_and_how_the_detector_did():
    given = updates([[3.0, 4.0], [0.0, 1.0], [NAN, 0.0], [0.0, 2.0]])
    detector = Suspects({10: 2.0, 11: 3.0, 13: 0.5}, {})
    _, receipt = server(detector=detector)(
        given, state(2, detector={"calls": torch.zeros(1)}), streams
    )
    lies = np.array([True, False, False, True])
    rows = {(m.scope, m.client, m.metric): m.value for m in about_round(4, given, lies, receipt)}
    assert rows["update", "10", "norm"] == 5.0
    assert [rows["update", str(c), "malicious"] for c in (10, 11, 12, 13)] == [1, 0, 0, 1]
    assert rows["update", "12", "dropped"] == 1
    assert ("update", "10", "dropped") not in rows
    assert rows["update", "10", "score"] == 2.0
    assert [rows["update", str(c), "flagged"] for c in (10, 11, 13)] == [1, 1, 0]
    assert ("update", "12", "score") not in rows
    assert not any(metric == "trust_unflagged" for _, _, metric in rows)
    about = {metric: value for (scope, _, metric), value in rows.items() if scope == "round"}
    assert about["malicious"] == 2
    assert about["dropped"] == 1
    assert about["skipped"] == 0
    assert (about["caught"], about["missed"], about["false_alarms"]) == (1, 1, 1)
    assert about["threshold"] == 1.0
    assert rows["train", "all", "loss"] == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert [m.value for m in traffic(4, 4 * 2 * 4, arrived(given))] == [4 * 2 * 4] * 2
    assert [m.value for m in traffic(4, None, arrived(given))] == [0, 0]


def test_the_record_holds_what_a_detector_takes_from_a_row_that_it_has_no_opinion_of():
    given = updates([[3.0], [1.0], [2.0]])
    _, receipt = server()(given, state(1), streams)
    trust = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    receipt = replace(receipt, verdict=replace(Verdict.no_opinion(3), trust=trust))
    of_nobody = np.zeros(3, dtype=bool)
    rows = [m for m in about_round(4, given, of_nobody, receipt) if m.metric == "trust_unflagged"]
    assert [(m.client, m.value) for m in rows] == [("11", 0.0), ("12", 0.5)]


def test_without_an_adversary_and_a_detector_the_record_is_silent_about_them():
    given = updates([[3.0, 4.0]])
    _, receipt = server()(given, state(2), streams)
    names = {(m.scope, m.metric) for m in about_round(1, given, None, receipt)}
    assert not names & {("update", "malicious"), ("update", "score"), ("round", "caught")}
    assert ("update", "norm") in names


@dataclass
class Protects:
    """A mechanism that can be followed by hand: halves rows, gives equal weights, adds 100."""

    releases_every_round: bool

    def init(self, d):
        return {"calls": torch.zeros(1)}

    def on_client(self, updates, state, rng):
        raise AssertionError("the clients' half is not the server's business")

    def on_receipt(self, updates, state):
        return replace(
            updates,
            matrix=updates.matrix / 2,
            num_examples=torch.ones(len(updates), dtype=torch.float64),
        )

    def on_step(self, step, updates, state, rng):
        self.released = (step.clone(), len(updates))
        return step + 100, {"calls": state["calls"] + 1}


def test_rows_are_bounded_before_the_rule_and_the_step_is_noised_after_it():
    mechanism = Protects(True)
    before = state(privacy=mechanism.init(1))
    after, receipt = server(privacy=mechanism)(updates([[2.0], [6.0]], [9.0, 1.0]), before, streams)
    assert mechanism.released == (torch.tensor([2.0]), 2)  # (1 + 3) / 2: halved, equal weights
    assert after.params.item() == receipt.step.item() == 102
    assert after.privacy["calls"].item() == 1


def test_what_the_detector_trusts_less_weighs_less_also_under_equal_weights():
    mechanism = Protects(False)
    suspects = Suspects({10: 0.0, 11: 2.0}, {11: 0.5})
    before = state(privacy=mechanism.init(1), detector=suspects.init(1))
    server(privacy=mechanism, detector=suspects)(updates([[2.0], [8.0]], [1, 99]), before, streams)
    assert mechanism.released[0].item() == pytest.approx((1 + 0.5 * 4) / 1.5)


@pytest.mark.parametrize("rows", [[], [[NAN]]], ids=["nobody", "nobody usable"])
@pytest.mark.parametrize("always", [True, False])
def test_noise_alone_is_released_where_a_mechanism_has_to(rows, always):
    mechanism = Protects(always)
    before = state(privacy=mechanism.init(1), failed_rounds=3)
    given = updates(rows) if rows else updates([[1.0]]).select(torch.tensor([False]))
    after, receipt = server(privacy=mechanism)(given, before, streams)
    assert after.params.item() == (100 if always else 0)
    assert after.privacy["calls"].item() == always
    assert bool(receipt.skipped) == (not always)
    assert after.failed_rounds == (0 if always else 4)


def test_who_guesses_the_rule_guesses_without_the_noise():
    mechanism = Protects(True)
    guess = server(privacy=mechanism).rule(
        updates([[2.0], [6.0]]), state(privacy=mechanism.init(1)), np.random.default_rng(0)
    )
    assert guess.item() == 2.0
