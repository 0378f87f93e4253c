"""The server's membership inference on federations that overfit, and on what hides them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.observer import RunStart
from fedexp.core.round_record import RoundRecord
from fedexp.core.types import Updates
from fedexp.leakage.membership.asked import Asked
from fedexp.leakage.membership.seen import Seen, path_of, read_seen, write_seen
from fedexp.leakage.membership.server import CONTROL, KNOWN, ServerMembership
from fedexp.leakage.membership.watching import Watching
from tests.support.membership_victims import digits, nobody, victim_of

OVERFIT = ("n_clients=5", "rounds=2", "training.epochs=5", "training.lr=0.3", "model.hidden=[32]")


def study(**changed):
    return ServerMembership(**{"examples": 100, "permutations": 40} | changed)


def watched(folder, *overrides, pixels=(100, 200)):
    """A run that the server has watched, opened as the study sees it."""
    return victim_of(folder, *digits(*pixels), *OVERFIT, *overrides, watch=study())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return watched(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def found(plain):
    return study()(plain, lambda share: None)


def test_every_member_has_a_counterpart_of_its_class_and_client(plain):
    asked = Asked.of(plain, 60)
    y, m = asked.examples.y, asked.pairs
    assert m == 60
    assert torch.equal(y[:m], y[m:])
    assert (asked.client[:m] == asked.client[m:]).all()
    assert (asked.wrong != asked.client).all()
    for client in range(5):
        held = plain.pixels.train.x[torch.from_numpy(plain.partition.shards[client])]
        its = asked.examples.x[:m][torch.from_numpy(asked.client[:m] == client)]
        assert all((held == x).flatten(1).all(1).any() for x in its)
    assert sorted(asked.by_lot[m:]) == sorted(asked.client[m:])


def test_nobody_asks_about_members_of_malicious_clients(tmp_path):
    flips = ("attack=sign_flip", "attack.n_malicious=2", "rounds=1", "training.epochs=1")
    victim = victim_of(tmp_path, *digits(40, 100), *OVERFIT, *flips)
    malicious = set(np.flatnonzero(victim.experiment.malicious))
    asked = Asked.of(victim, 60)
    assert set(asked.client) == set(range(5)) - malicious
    assert asked.pairs == 24


def test_the_server_tells_members_and_their_holders(found):
    assert found.headline["auc"] > found.headline["auc_null_high"]
    assert found.headline["source_accuracy"] > 2 / 5
    assert found.headline["rounds_seen"] == 2
    assert found.adversaries[""] == "server"
    assert "tells members from others" in found.conclusions[0]
    confusion = found.arrays["source_confusion"]
    assert confusion.sum() == found.headline["n_members"]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(found.headline["source_accuracy"])


def test_the_control_lies_inside_its_null_interval(found):
    values = {f.metric: f.value for f in found.figures if f.subject == CONTROL}
    assert values["auc_null_low"] <= values["auc"] <= values["auc_null_high"]


def test_single_rounds_and_classes_have_figures_of_their_own(found):
    alone = [f for f in found.figures if f.subject.endswith("one round alone")]
    assert {f.round for f in alone} == {1, 2}
    of_classes = [f for f in found.figures if f.subject == f"{KNOWN}, by class"]
    assert {f.target for f in of_classes} <= set(range(10))
    assert {f.metric for f in of_classes} >= {"auc", "auc_low", "auc_high"}


def test_too_few_non_members_for_a_rate_are_named(found):
    assert np.isnan(found.headline["tpr_at_0.1_percent_fpr"])
    assert any("takes 1,000 non-members" in line for line in found.conclusions)


def test_a_sum_over_all_clients_names_nobody(tmp_path):
    victim = watched(tmp_path, "channel=secure_aggregation")
    found = study()(victim, lambda share: None)
    assert found.adversaries[""] == "server behind secure aggregation of 5"
    assert all(figure.subject != CONTROL for figure in found.figures)
    assert any(line.startswith("There is no control") for line in found.conclusions)
    assert (found.arrays["source_confusion"].sum(axis=0) > 0).all()  # one by lot, not the first
    asked = Asked.of(victim, 100)
    assert read_seen(victim.folder, 1, asked).slopes.shape == (1, len(asked))


def test_what_is_kept_of_a_round_comes_back_and_of_other_examples_does_not(plain, tmp_path):
    asked = Asked.of(plain, 100)
    seen = read_seen(plain.folder, 2, asked)
    write_seen(tmp_path, 2, seen, asked)
    again = read_seen(tmp_path, 2, asked)
    assert np.array_equal(again.slopes, seen.slopes)
    assert again.row_of_clients(5).tolist() == [0, 1, 2, 3, 4]
    assert read_seen(plain.folder, 2, Asked.of(plain, 99)) is None
    assert read_seen(tmp_path, 1, asked) is None
    path_of(tmp_path, 2).write_bytes(b"\0" * 9)
    assert read_seen(tmp_path, 2, asked) is None


def test_a_file_that_names_a_row_that_is_not_there_is_not_read(plain, tmp_path):
    asked = Asked.of(plain, 100)
    seen = read_seen(plain.folder, 1, asked)
    write_seen(tmp_path, 1, replace(seen, row_of=seen.row_of + 1), asked)
    assert read_seen(tmp_path, 1, asked) is None


def test_rows_that_are_not_finite_tell_nothing(plain):
    asked = Asked.of(plain, 10)
    rows = torch.zeros(2, len(plain.models[0]))
    rows[0, 3] = torch.nan
    seen = Seen.of(plain, asked, plain.models[0], rows, [[4], [2, 3]], None)
    assert seen.slopes.shape == (1, 20)
    assert seen.row_of_clients(5).tolist() == [-1, -1, 0, 0, -1]
    assert seen.step.shape == (0, 20)


def test_a_round_of_which_nothing_arrived_is_passed_over(plain, tmp_path):
    victim = replace(plain, folder=tmp_path)
    observer = Watching(victim, Asked.of(victim, 10))
    state = type("State", (), {"params": plain.models[0]})
    observer.run_started(RunStart({}, tmp_path, {}, state, ()))
    d = len(plain.models[0])
    nothing = Updates(torch.zeros(0, d), (), torch.zeros(0, dtype=torch.float64))
    observer.round_done(state, RoundRecord(1, (), None, {}, received=nothing))
    with pytest.raises(InputError, match="no row that reached the server"):
        study(examples=10)(victim, lambda share: None)


def test_a_run_that_nobody_watched_is_refused_with_the_way_out(plain, tmp_path):
    with pytest.raises(InputError, match="leakage=server_membership"):
        study()(replace(plain, folder=tmp_path), lambda share: None)


def test_no_counterpart_is_refused(plain):
    empty = replace(plain, reserve=nobody(), pixels=replace(plain.pixels, test=nobody()))
    with pytest.raises(InputError, match="train_examples"):
        Asked.of(empty, 10)


def test_a_class_that_has_fewer_counterparts_has_fewer_members(plain):
    few = Split(plain.reserve.x[:7], plain.reserve.y[:7])
    asked = Asked.of(replace(plain, reserve=few), 100)
    assert asked.pairs <= 7
    assert torch.equal(asked.examples.y[: asked.pairs], asked.examples.y[asked.pairs :])


@pytest.mark.parametrize("changed", [{"examples": 0}, {"permutations": 39}])
def test_settings_that_give_no_answer(changed):
    with pytest.raises(InputError):
        study(**changed)
