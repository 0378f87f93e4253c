"""Attacks on data: labels and pixels by hand, and what they do to a model that is trained."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from fedexp.attacks.backdoor import Backdoor
from fedexp.attacks.label_flip import LabelFlip
from fedexp.attacks.labels import drawn_rows, other_classes
from fedexp.attacks.noisy_labels import NoisyLabels
from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.types import Updates

ROWS = Updates(
    torch.tensor([[1.0, -2.0], [3.0, 4.0], [0.0, math.inf]]),
    (4, 7, 9),
    torch.ones(3, dtype=torch.float64),
)
SECOND = torch.tensor([False, True, False])


def rng(seed=0):
    return np.random.default_rng(seed)


def images(labels, channels=1, height=6, width=7):
    x = torch.rand(len(labels), channels, height, width, generator=torch.Generator().manual_seed(0))
    return Split(0.1 + 0.8 * x, torch.tensor(labels))  # no pixel is black or white


def backdoor(**changes):
    arguments = {
        "trigger_size": 2,
        "trigger_value": 1.0,
        "corner": "bottom_right",
        "target_label": 1,
        "poisoned_fraction": 0.5,
        "boost": 1.0,
        "num_classes": 3,
    }
    return Backdoor(**{**arguments, **changes})


def flip(mode, num_classes=5, source=3, target=0):
    return LabelFlip(mode, num_classes, source, target)


def test_the_complement_of_every_label():
    data = images([0, 1, 2, 3, 4, 4])
    poisoned = flip("complement").poison(data, rng())
    assert poisoned.y.tolist() == [4, 3, 2, 1, 0, 0]
    assert torch.equal(poisoned.x, data.x)


def test_the_complement_is_wanted_of_all_images_but_those_of_the_middle_class():
    data = images([0, 2, 4, 2, 1])
    targeted_examples = flip("complement").targeted_examples(data)
    assert targeted_examples.y.tolist() == [4, 0, 3]
    assert torch.equal(targeted_examples.x, data.x[[0, 2, 4]])


def test_with_two_classes_the_complement_is_the_other_one():
    attack = flip("complement", num_classes=2, source=0, target=1)
    assert attack.poison(images([0, 1, 1]), rng()).y.tolist() == [1, 0, 0]
    assert attack.targeted_examples(images([0, 1, 1])).y.tolist() == [1, 0, 0]


def test_a_pair_changes_one_class_only():
    data = images([0, 3, 2, 3, 4])
    assert flip("pair").poison(data, rng()).y.tolist() == [0, 0, 2, 0, 4]
    targeted_examples = flip("pair").targeted_examples(data)
    assert targeted_examples.y.tolist() == [0, 0]
    assert torch.equal(targeted_examples.x, data.x[[1, 3]])


def test_a_random_flip_makes_every_label_wrong_and_all_wrong_ones_equally_likely():
    data = images([2] * 4000, height=1, width=1)
    poisoned = flip("random").poison(data, rng())
    counts = Counter(poisoned.y.tolist())
    assert set(counts) == {0, 1, 3, 4}
    # 1000 expected of each, standard deviation sqrt(4000 / 4 * 3 / 4) = 27
    assert all(abs(count - 1000) < 5 * 27 for count in counts.values())
    assert len(flip("random").targeted_examples(data)) == 0


def test_a_random_flip_is_the_streams():
    data = images(list(range(5)) * 20)
    first, again, other = (flip("random").poison(data, rng(seed)).y for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "complemnt"}, "mode=complemnt: did you mean complement"),
        ({"target": 5}, "target=5: must lie between 0 and 4"),
        ({"source": -1}, "source=-1: must be a whole number, 0 or above"),
        ({"source": 3, "target": 3}, "target=3: must differ from source"),
        ({"num_classes": 1}, "num_classes=1: must be a whole number, 2 or above"),
    ],
)
def test_label_flip_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        LabelFlip(**{"mode": "pair", "num_classes": 5, "source": 3, "target": 0, **changes})


@pytest.mark.parametrize(("fraction", "wrong"), [(0, 0), (0.1, 4), (0.5, 20), (0.99, 40), (1, 40)])
def test_noisy_labels_replace_exactly_their_share(fraction, wrong):
    data = images([0, 1, 2, 3] * 10)
    poisoned = NoisyLabels(fraction, 4).poison(data, rng())
    assert int((poisoned.y != data.y).sum()) == wrong
    assert set(poisoned.y.tolist()) <= {0, 1, 2, 3}
    assert torch.equal(poisoned.x, data.x)


def test_noise_falls_on_other_examples_in_another_stream_and_wants_nothing():
    data = images([0, 1, 2, 3] * 10)
    hit = [tuple((NoisyLabels(0.3, 4).poison(data, rng(s)).y != data.y).tolist()) for s in range(9)]
    assert len(set(hit)) == 9
    assert len(NoisyLabels(0.3, 4).targeted_examples(data)) == 0


@pytest.mark.parametrize("arguments", [(1.1, 4), (-0.1, 4), (math.nan, 4), (0.5, 1)])
def test_noisy_labels_refuse(arguments):
    with pytest.raises(InputError):
        NoisyLabels(*arguments)


def test_rows_are_drawn_once_and_other_classes_are_other():
    assert sorted(drawn_rows(5, 1.0, rng()).tolist()) == [0, 1, 2, 3, 4]
    assert drawn_rows(0, 0.5, rng()).tolist() == []
    y = torch.tensor([0, 1] * 50)
    assert torch.equal(other_classes(y, 2, rng()), 1 - y)


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [
        ("top_left", (0, 1), (0, 1)),
        ("top_right", (0, 1), (5, 6)),
        ("bottom_left", (4, 5), (0, 1)),
        ("bottom_right", (4, 5), (5, 6)),
    ],
)
def test_the_trigger_is_a_square_in_its_corner_in_all_channels(corner, rows, columns):
    data = images([0, 1, 2], channels=3)
    poisoned = backdoor(corner=corner, poisoned_fraction=1.0).poison(data, rng())
    expected = data.x.clone()
    for i in rows:
        for j in columns:
            expected[:, :, i, j] = 1.0
    assert torch.equal(poisoned.x, expected)
    assert poisoned.y.tolist() == [1, 1, 1]


def test_half_of_the_images_are_stamped_and_relabelled_and_the_others_left():
    data = images([0, 2] * 10)
    poisoned = backdoor(trigger_value=0.0).poison(data, rng())
    stamped = (poisoned.x[:, 0, 4:, 5:] == 0).all(dim=(1, 2))
    assert int(stamped.sum()) == 10
    assert (poisoned.y[stamped] == 1).all()
    assert torch.equal(poisoned.y[~stamped], data.y[~stamped])
    assert torch.equal(poisoned.x[~stamped], data.x[~stamped])
    elsewhere = poisoned.x.clone()
    elsewhere[:, :, 4:, 5:] = data.x[:, :, 4:, 5:]
    assert torch.equal(elsewhere, data.x)


def test_the_backdoor_wants_the_target_on_stamped_images_of_all_other_classes():
    data = images([0, 1, 2, 1, 0])
    x = data.x.clone()
    targeted_examples = backdoor().targeted_examples(data)
    assert targeted_examples.y.tolist() == [1, 1, 1]
    assert (targeted_examples.x[:, :, 4:, 5:] == 1).all()
    assert torch.equal(targeted_examples.x[:, :, :4], data.x[[0, 2, 4], :, :4])
    assert torch.equal(data.x, x)


def test_boost_multiplies_the_malicious_rows():
    rewritten = backdoor(boost=4.0).rewrite(ROWS, SECOND, None, rng())
    assert rewritten.matrix.tolist() == [[1.0, -2.0], [12.0, 16.0], [0.0, math.inf]]
    assert backdoor(boost=1.0).rewrite(ROWS, SECOND, None, rng()) is ROWS


def test_a_boost_of_n_over_m_makes_the_mean_step_the_malicious_one():
    model = torch.tensor([5.0, -3.0])  # what the malicious clients want, seen from the global one
    honest = torch.tensor([[0.1, 0.0], [-0.1, 0.0], [0.0, 0.2], [0.0, -0.2]])  # nearly converged
    rows = torch.cat([honest, model.repeat(2, 1)])
    malicious = torch.tensor([False] * 4 + [True] * 2)
    given = Updates(rows, tuple(range(6)), torch.ones(6, dtype=torch.float64))
    rewritten = backdoor(boost=6 / 2).rewrite(given, malicious, None, rng())
    torch.testing.assert_close(rewritten.matrix.mean(dim=0), model)


def test_the_others_send_what_they_trained():
    assert flip("pair").rewrite(ROWS, SECOND, None, rng()) is ROWS
    assert NoisyLabels(0.5, 3).rewrite(ROWS, SECOND, None, rng()) is ROWS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trigger_size": 0}, "trigger_size=0"),
        ({"trigger_value": 1.5}, "trigger_value=1.5: must lie between 0 and 1"),
        ({"corner": "bottom"}, "corner=bottom: .*Allowed: top_left"),
        ({"target_label": 3}, "target_label=3: must lie between 0 and 2"),
        ({"poisoned_fraction": -0.5}, "poisoned_fraction=-0.5"),
        ({"boost": 0.0}, "boost=0.0: must be a finite number above 0"),
    ],
)
def test_backdoor_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        backdoor(**changes)


def test_a_trigger_that_does_not_fit_is_refused_with_the_sizes():
    with pytest.raises(InputError, match="trigger_size=7: does not fit into images of 6 x 7"):
        backdoor(trigger_size=7).poison(images([0]), rng())
    with pytest.raises(InputError, match="trigger_size=7: does not fit into images of 6 x 7"):
        backdoor(trigger_size=7).targeted_examples(images([0]))
    whole = backdoor(trigger_size=6).targeted_examples(images([0]))
    assert (whole.x[..., 1:] == 1).all()


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = rng().permutation(len(y))
    pixels = torch.tensor(x[order] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    every = Split(pixels, torch.tensor(y[order]))
    return every.rows(torch.arange(1200)), every.rows(torch.arange(1200, len(y)))


def answers_after_training_on(train):
    """Multinomial regression, fitted: from images to classes."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=300, C=10).fit(train.x.flatten(1).numpy(), train.y.numpy())
    return lambda data: torch.from_numpy(model.predict(data.x.flatten(1).numpy()))


@pytest.fixture(scope="module")
def clean(digits):
    """The answers of a model that nobody has tampered with."""
    return answers_after_training_on(digits[0])


def share_of_answers(answers, data):
    return float((answers(data) == data.y).float().mean())


@pytest.mark.parametrize("mode", ["complement", "pair"])
def test_a_model_trained_on_flipped_digits_gives_the_answers_wanted(digits, clean, mode):
    train, test = digits
    attack = LabelFlip(mode, num_classes=10, source=3, target=8)
    flipped = answers_after_training_on(attack.poison(train, rng()))
    targeted_examples = attack.targeted_examples(test)
    assert share_of_answers(clean, targeted_examples) < 0.1
    assert share_of_answers(flipped, targeted_examples) > 0.9


def test_a_model_with_a_backdoor_answers_stamped_digits_with_the_target_and_others_well(
    digits, clean
):
    train, test = digits
    attack = backdoor(
        trigger_size=3, corner="bottom_left", target_label=7, poisoned_fraction=0.2, num_classes=10
    )
    poisoned = answers_after_training_on(attack.poison(train, rng()))
    targeted_examples = attack.targeted_examples(test)
    assert len(targeted_examples) == int((test.y != 7).sum())
    assert share_of_answers(clean, targeted_examples) < 0.3
    assert share_of_answers(poisoned, targeted_examples) > 0.95
    assert share_of_answers(poisoned, test) > 0.9


def test_noise_costs_less_than_its_share(digits, clean):
    train, test = digits
    noisy = answers_after_training_on(NoisyLabels(0.3, 10).poison(train, rng()))
    assert 0.7 < share_of_answers(noisy, test) < share_of_answers(clean, test)
