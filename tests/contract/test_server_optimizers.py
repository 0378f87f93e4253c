"""What every server optimiser of conf/server_optimizer must keep."""

import pytest
import torch

from tests.support.composing import choices, part

D = 23


@pytest.fixture(params=choices("server_optimizer"))
def optimizer(request):
    return part("server_optimizer", request.param)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_configs_were_found():
    assert {"sgd", "momentum", "adam", "yogi", "adagrad"} <= set(choices("server_optimizer"))


def test_no_step_leaves_the_model_where_it_is(optimizer):
    params = random(D)
    new, _ = optimizer(params, torch.zeros(D), optimizer.init(params))
    assert torch.equal(new, params)


def test_the_model_moves_where_the_step_points(optimizer):
    params, step = random(D), random(D, seed=1)
    new, _ = optimizer(params, step, optimizer.init(params))
    assert torch.equal((new - params).sign(), step.sign())


def test_what_was_given_stays_as_it_was(optimizer):
    params, step = random(D), random(D, seed=1)
    _, state = optimizer(params, random(D, seed=2), optimizer.init(params))
    params_before, step_before = params.clone(), step.clone()
    copies = {name: tensor.clone() for name, tensor in state.items()}
    new, after = optimizer(params, step, state)
    assert torch.equal(params, params_before)
    assert torch.equal(step, step_before)
    assert new.data_ptr() not in (params.data_ptr(), step.data_ptr())
    for name, tensor in copies.items():
        assert torch.equal(state[name], tensor)
        assert after[name].data_ptr() not in (params.data_ptr(), step.data_ptr())


def test_the_state_keeps_its_shape_over_the_rounds(optimizer):
    params = random(D)
    state = first = optimizer.init(params)
    for round in range(5):
        params, state = optimizer(params, random(D, seed=round), state)
        assert params.shape == (D,)
        assert params.dtype == torch.float32
        assert params.isfinite().all()
        assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
            k: (v.shape, v.dtype) for k, v in first.items()
        }


def test_clients_models_side_by_side_move_as_each_alone(optimizer):
    n, rounds = 3, 3
    together = random(n, D)
    alone = list(together)
    states = [optimizer.init(model) for model in alone]
    state = optimizer.init(together)
    for round in range(rounds):
        steps = random(n, D, seed=round + 1)
        together, state = optimizer(together, steps, state)
        for k in range(n):
            alone[k], states[k] = optimizer(alone[k], steps[k], states[k])
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-6, atol=1e-7)


def test_a_saved_state_goes_on_as_if_nothing_had_happened(optimizer):
    params = random(D)
    params, state = optimizer(params, random(D, seed=1), optimizer.init(params))
    saved = {name: tensor.clone() for name, tensor in state.items()}
    straight, _ = optimizer(params, random(D, seed=2), state)
    resumed, _ = optimizer(params.clone(), random(D, seed=2), saved)
    assert torch.equal(straight, resumed)
