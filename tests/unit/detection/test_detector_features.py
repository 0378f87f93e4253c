"""What a detector sees of a round, against the formulas."""

import numpy as np
import pytest
import torch

from fedexp.detection.features import (
    DECAY,
    RELATIONS,
    RESIDUAL,
    empty_memory,
    remember,
    round_features,
    shorten,
)
from fedexp.detection.sketch import count_sketch
from tests.support.detecting import rows


def robust(values):
    """(x - median) / max(1.4826 MAD, 0.1), typed from the docstring."""
    values = np.asarray(values)
    distance = values - np.median(values)
    return distance / max(1.4826 * np.median(np.abs(distance)), 0.1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_relations_against_the_formulas():
    before, now = rows(7, 50).numpy(), (rows(7, 50, seed=1) + 0.5).numpy()
    history, short = shorten(torch.from_numpy(before), None, 0), shorten(torch.tensor(now), None, 0)
    memory = remember(empty_memory(50), history, range(7), torch.ones(7, dtype=torch.bool))
    found = round_features(short, range(7), memory)[:, :RELATIONS].numpy()

    u, past = unit(now.astype(float)), unit(before.astype(float))
    centre, direction = unit(np.median(u, axis=0)), unit(past.mean(axis=0))
    cosines = [u @ centre, u @ direction, (u * past).sum(axis=1)]
    lengths = np.linalg.norm(now, axis=1)
    expected = [robust(lengths / np.median(lengths))]
    expected += [robust(c / max(np.median(c), 50**-0.5)) for c in cosines]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4, atol=1e-4)


def test_the_rest_of_the_vector_lies_outside_the_plane_of_centre_and_direction():
    x = rows(9, 40)
    short = shorten(x, None, 0)
    memory = {**empty_memory(40), "direction": rows(1, 40, seed=4)[0]}
    u = unit(x.double().numpy())
    plane, _ = np.linalg.qr(
        np.stack([np.median(u, axis=0), memory["direction"].double().numpy()], axis=1)
    )
    rest = u - u @ plane @ plane.T
    rest *= RESIDUAL**0.5 / np.median(np.linalg.norm(rest, axis=1))
    expected = count_sketch(torch.from_numpy(rest), RESIDUAL, 0)
    found = round_features(short, None, memory)[:, RELATIONS:]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_round_that_shrinks_or_turns_looks_the_same(factor):
    x = rows(9, 40) + 1
    turned = x.clone()
    turned[:, :20] *= -1  # a reflection of all rows together, and of the past with them
    memory = {**empty_memory(40), "direction": rows(1, 40, seed=4)[0]}
    reflected = {
        **memory,
        "direction": memory["direction"] * torch.ones(40).index_fill(0, torch.arange(20), -1),
    }
    before = round_features(shorten(x, None, 0), None, memory)[:, :RELATIONS]
    after = round_features(shorten(turned * factor, None, 0), None, reflected)[:, :RELATIONS]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_a_minority_cannot_move_what_honest_rows_look_like():
    x = rows(11, 200) + 1
    attacked = x.clone()
    attacked[:4] = -1e4 * x[:4]
    honest = round_features(shorten(x, None, 0), None, empty_memory(200))
    mixed = round_features(shorten(attacked, None, 0), None, empty_memory(200))
    assert honest[4:, :RELATIONS].abs().max() < 6
    assert mixed[4:, :RELATIONS].abs().max() < 6
    assert (mixed[:4, 0] > 50).all()
    assert (mixed[:4, 1] < -10).all()


def test_what_is_remembered():
    memory = empty_memory(2)
    yes = torch.ones(3, dtype=torch.bool)
    first = shorten(torch.tensor([[3.0, 0], [0, 5], [1, 0]]), None, 0)
    memory = remember(memory, first, [7, 2, -1], yes)
    torch.testing.assert_close(memory["direction"], (1 - DECAY) * torch.tensor([2 / 3, 1 / 3]))
    assert memory["clients"].tolist() == [2, 7]  # a mixture has no habit
    torch.testing.assert_close(memory["habits"], (1 - DECAY) * torch.tensor([[0.0, 1], [1, 0]]))

    second = shorten(torch.tensor([[0.0, 1], [-1, 0], [1, 0]]), None, 0)
    after = remember(memory, second, [7, 2, 9], torch.tensor([True, True, False]))
    # 2 points against everybody, 9 was flagged: only 7 is learned from.
    assert after["clients"].tolist() == [2, 7]
    torch.testing.assert_close(after["habits"][0], memory["habits"][0])
    torch.testing.assert_close(
        after["habits"][1], DECAY * memory["habits"][1] + (1 - DECAY) * torch.tensor([0.0, 1])
    )


def test_a_client_without_a_past_has_no_habit_to_break():
    x = rows(8, 30) + 1
    short = shorten(x, None, 0)
    memory = remember(empty_memory(30), short, range(8), torch.ones(8, dtype=torch.bool))
    features = round_features(short, [0, 1, 2, 3, 4, 5, 6, 99], memory)
    assert features[7, 3] == 0
    assert (round_features(short, None, memory)[:, 3] == 0).all()
