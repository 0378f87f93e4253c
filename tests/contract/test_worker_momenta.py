"""What every choice of conf/worker_momentum must keep."""

import pytest
import torch

from tests.support.composing import choices, part
from tests.support.updates import updates

CHOICES = choices("worker_momentum")


@pytest.fixture(params=CHOICES)
def momentum(request):
    return part("worker_momentum", request.param)


def rows(seed):
    return updates(torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)))


def test_the_configs_were_found():
    assert {"none", "momentum"} <= set(CHOICES)


def test_clients_rows_stay_in_their_order_and_what_is_beside_the_delta_is_left(momentum):
    kept = [{}, {}, {}]
    for seed in range(3):
        given = rows(seed)
        before = given.matrix.clone()
        sent, kept = momentum(given, kept, 4)
        assert torch.equal(given.matrix, before)
        assert sent.client_ids == given.client_ids
        assert torch.equal(sent.num_examples, given.num_examples)
        assert sent.metrics == given.metrics
        assert torch.equal(sent.matrix[:, 4], before[:, 4])
        assert len(kept) == 3


def test_a_clients_row_depends_on_its_own_updates_alone(momentum):
    kept, alone = [{}, {}, {}], [{}]
    for seed in range(3):
        sent, kept = momentum(rows(seed), kept, 5)
        only = rows(seed).select(torch.tensor([False, True, False]))
        own, alone = momentum(only, alone, 5)
        assert torch.equal(sent.matrix[1], own.matrix[0])


def test_what_is_kept_has_the_same_names_and_shapes_from_the_first_time_on(momentum):
    shapes = []
    kept = [{}, {}, {}]
    for seed in range(3):
        _, kept = momentum(rows(seed), kept, 5)
        shapes.append([{name: t.shape for name, t in state.items()} for state in kept])
    assert shapes[0] == shapes[1] == shapes[2]


def test_nobody_took_part(momentum):
    nobody = rows(0).select(torch.zeros(3, dtype=torch.bool))
    sent, kept = momentum(nobody, [], 5)
    assert sent.matrix.shape == (0, 5)
    assert kept == []
