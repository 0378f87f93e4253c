"""The builder's own rules: types, poisoned data, and who is malicious."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from fedexp.aggregation.trimmed_mean import TrimmedMean
from fedexp.attacks.none import NoAttack
from fedexp.channel.plain import Plain
from fedexp.channel.secure_random_k import SecureRandomK
from fedexp.config.adversary import malicious_clients, poisoned
from fedexp.config.build import _device
from fedexp.config.cohort_rehearsal import rehearse_cohort
from fedexp.config.parts import _check_arguments, _describe, _fits, _hints
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.core.protocols import Sampler
from fedexp.detection.none import NoDetector
from fedexp.federation.sampling import Uniform
from fedexp.federation.settings import Federated
from tests.support.composing import part


@pytest.mark.parametrize(
    ("hint", "fits", "does_not"),
    [
        (int, [0, -3], [True, 1.0, "1", None, [1]]),
        (float, [0, 1.5, float("nan")], [True, "1", None]),
        (bool, [True, False], [0, 1, "true"]),
        (str, ["word", ""], [1, None, ["word"]]),
        (int | None, [3, None], [True, 3.5, "none"]),
        (float | None, [3, 0.5, None], [False]),
        (Literal["examples", "uniform"], ["uniform"], ["unifrom", None]),
        (Sequence[int], [[], [1, 2]], [[1.5], [True], 1, "12"]),
        (list[str], [["a"]], ["a", [1]]),
        (tuple[float, ...], [[1, 0.5]], [["x"], 1.0]),
        (Callable[[int], float], [{"_target_": "x"}], ["cosine", 1, None, {}]),
        (Sampler, [{"_target_": "x"}], ["uniform", 1, None, {}]),
        (Uniform, [{"_target_": "x"}], ["uniform", 1, None, {}]),
        (dict[str, int], [{"a": 1}, {}], []),  # hints that we do not know fit anything
    ],
    ids=str,
)
def test_types_of_values(hint, fits, does_not):
    assert all(_fits(value, hint) for value in fits)
    assert not any(_fits(value, hint) for value in does_not)


def test_types_are_told_in_words():
    assert _describe(int | None) == "a whole number or null"
    assert _describe(Literal["a", "b"]) == "one of a, b"
    assert _describe(Sequence[float]) == "a list, each item a number"
    assert _describe(bool) == "true or false"


def takes(lr: float, steps: int = 3, *, workload: object = None) -> None:
    pass


def untyped(lr: "OnlyForTypeCheckers", steps=3):  # noqa: F821
    pass


def test_arguments_are_checked_by_name_and_type():
    _check_arguments(takes, {"_target_": "x", "lr": 1}, "training", ("workload",))
    with pytest.raises(InputError, match=r"training.step=3: did you mean steps"):
        _check_arguments(takes, {"lr": 1, "step": 3}, "training", ())
    with pytest.raises(InputError, match=r"training.steps=2.5: must be a whole number"):
        _check_arguments(takes, {"lr": 1, "steps": 2.5}, "training", ())
    with pytest.raises(InputError, match=r"training.lr=: has no value; set it with \+training.lr="):
        _check_arguments(takes, {}, "training", ())


def test_inherited_arguments_have_the_types_that_their_own_file_knows():
    # Its parent's file imports names that its own does not; record_views=0 was taken.
    assert {"record_views": bool, "share": float}.items() <= _hints(SecureRandomK).items()


def test_what_the_builder_hands_in_is_no_users_to_set():
    with pytest.raises(InputError, match=r"backend.workload=3: Known here: lr, steps"):
        _check_arguments(takes, {"lr": 1, "workload": 3}, "backend", ("workload",))


def test_annotations_that_only_a_type_checker_can_read_are_no_obstacle():
    _check_arguments(untyped, {"lr": "anything"}, "model", ())
    with pytest.raises(InputError, match=r"model.step=1"):
        _check_arguments(untyped, {"lr": 1, "step": 1}, "model", ())


def test_the_seed_alone_decides_who_is_malicious():
    def mask(seed, n_malicious):
        return malicious_clients({"seed": seed, "attack": {"n_malicious": n_malicious}}, 20)

    assert mask(0, 5).sum() == 5
    assert np.array_equal(mask(0, 5), mask(0, 5))
    assert any(not np.array_equal(mask(0, 5), mask(seed, 5)) for seed in range(1, 5))
    assert mask(0, 0).sum() == 0
    assert mask(0, 20).all()


class ShiftLabels:
    """Poison that can be recognised, and whose stream can be compared."""

    def poison(self, data, rng):
        return Split(data.x + rng.random(), (data.y + 1) % 3)

    def rewrite(self, updates, malicious, rule, rng):
        return updates


@pytest.fixture
def partition():
    train = Split(torch.zeros(6, 1, 1, 1), torch.tensor([0, 1, 2, 0, 1, 2]))
    return Partition(train, (np.array([0, 3]), np.array([1, 5]), np.array([2, 4])))


def test_only_the_malicious_clients_rows_are_poisoned(partition):
    changed = poisoned(partition, ShiftLabels(), np.array([False, True, False]), 3, seed=0)
    assert changed.y.tolist() == [0, 2, 2, 0, 1, 0]
    assert (changed.x.flatten() > 0).tolist() == [False, True, False, False, False, True]
    assert partition.train.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert partition.train.x.abs().max() == 0


def test_poison_in_place_is_no_poison(partition):
    class Zeroes:
        def poison(self, data, rng):
            data.y.zero_()
            return data

    class Fails:
        def poison(self, data, rng):
            return data.labels

    for attack, words in (
        (Zeroes(), "must return new examples"),
        (Fails(), "cannot poison client"),
    ):
        with pytest.raises(InputError, match=rf"^attack=\S*{type(attack).__name__}: {words}"):
            poisoned(partition, attack, np.ones(3, dtype=bool), 3, seed=0)


def test_a_label_that_there_is_not_names_the_attack_or_the_key_that_tells_it(partition):
    class Shifts:
        def poison(self, data, rng):
            return replace(data, y=data.y + 7)

    class Told(Shifts):
        num_classes = 9

    for attack, named in ((Shifts(), r"attack=\S*Shifts"), (Told(), r"attack\.num_classes=9")):
        with pytest.raises(InputError, match=rf"^{named}: gives label 7, and there are"):
            poisoned(partition, attack, np.array([True, False, False]), 3, seed=0)


def test_labels_of_another_type_are_no_poison(partition):
    class Floats:
        def poison(self, data, rng):
            return replace(data, y=data.y.float())

    with pytest.raises(InputError, match=r"^attack=\S*Floats: made .* shape or type"):
        poisoned(partition, Floats(), np.ones(3, dtype=bool), 3, seed=0)


def test_every_client_is_poisoned_by_a_stream_of_its_own(partition):
    both = poisoned(partition, ShiftLabels(), np.array([True, True, False]), 3, seed=0)
    one = poisoned(partition, ShiftLabels(), np.array([False, True, False]), 3, seed=0)
    assert both.x[0] != both.x[1]
    assert torch.equal(both.x[[1, 5]], one.x[[1, 5]])


def test_without_poison_nothing_is_copied(partition):
    everybody, nobody = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    assert poisoned(partition, NoAttack(), everybody, 3, seed=0).x is partition.train.x
    assert poisoned(partition, ShiftLabels(), nobody, 3, seed=0).x is partition.train.x


def test_the_rehearsal_finds_what_cannot_hold_for_the_cohort():
    def rehearse(cohort_size, detector=None, **mixers):
        parts = SimpleNamespace(
            channel=Plain(),
            n_clients=10,
            cohort_size=cohort_size,
            pre_aggregation=mixers,
            detector=detector or NoDetector(),
            setting=Federated(),
        )
        rehearse_cohort(parts, TrimmedMean(2))

    rehearse(5)
    with pytest.raises(InputError, match=r"aggregator.assumed_malicious=2: .*2 x 2 .* 4"):
        rehearse(4)

    class HalvesTheRows:
        def __call__(self, updates, rng):
            return updates.select(torch.arange(len(updates)) % 2 == 0)

    with pytest.raises(InputError, match=r"aggregator.assumed_malicious=2: .*2 x 2 .* 3"):
        rehearse(6, halves=HalvesTheRows())
    with pytest.raises(InputError, match=r"detector.assumed_malicious=3: .*2 x 3 .* 6"):
        rehearse(6, detector=part("detector", "flanders", "detector.assumed_malicious=3"))


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _device("cpu") == _device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="device=cuda: no GPU"):
        _device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _device("cuda") == _device("auto") == torch.device("cuda")
    assert _device("cpu") == torch.device("cpu")
