"""Between a module and its vector: copies everywhere, in a fixed order."""

import copy

import pytest
import torch
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import FlatModel, state_dict_of, vector_of
from fedexp.core.normalise import Normalisation

CPU = torch.device("cpu")


def tiny():
    """Two weights and a bias that can be told apart."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(3.0)
    return layer


def test_the_vector_holds_the_parameters_in_order():
    module = nn.Sequential(tiny(), nn.ReLU(), tiny())
    assert vector_of(module).tolist() == [1, 2, 3, 1, 2, 3]
    assert vector_of(module).dtype == torch.float32


def test_the_vector_is_a_copy():
    for module in (tiny(), nn.Linear(3, 1, bias=False)):  # the second: a single parameter
        before = copy.deepcopy(module.state_dict())
        vector = vector_of(module)
        assert not vector.requires_grad
        vector.fill_(9.0)
        assert all(torch.equal(module.state_dict()[name], t) for name, t in before.items())


def test_frozen_parameters_are_not_in_the_vector_and_keep_their_values():
    module = tiny()
    module.bias.requires_grad_(False)
    assert vector_of(module).tolist() == [1, 2]
    model = FlatModel(module, CPU)
    model.load(torch.tensor([5.0, 6.0]))
    assert model.module(torch.tensor([[1.0, 1.0]])).item() == 14


def test_tied_parameters_are_in_the_vector_once_and_stay_tied():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    model = FlatModel(nn.Sequential(first, second), CPU)
    assert model.vector.shape == (4,)
    model.load(torch.tensor([2.0, 0.0, 0.0, 2.0]))
    assert model.module(torch.tensor([[1.0, 3.0]])).tolist() == [[4.0, 12.0]]


def test_loading_sets_the_module():
    model = FlatModel(tiny(), CPU)
    model.load(torch.tensor([10.0, 20.0, 30.0]))
    assert model.module(torch.tensor([[1.0, 1.0]])).item() == 60


def test_a_step_on_the_parameters_moves_the_vector():
    model = FlatModel(tiny(), CPU)
    with torch.no_grad():
        for parameter in model.parameters:
            parameter.add_(1.0)
    assert model.vector.tolist() == [2, 3, 4]


def test_local_training_never_writes_to_the_servers_vector_or_module():
    # With torch.nn.utils.vector_to_parameters the parameters are views of the given vector: local
    # SGD edits the server's model, and every delta is 0.
    module = tiny()
    server = vector_of(module)
    model = FlatModel(module, CPU)
    model.load(server)
    loss = model.module(torch.tensor([[1.0, -1.0]])).square().sum()
    gradients = torch.autograd.grad(loss, model.parameters)
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters, gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    delta = model.vector - server
    # 1 - 2 + 3 = 2, so the gradient is 2 * 2 * (1, -1, 1).
    torch.testing.assert_close(delta, torch.tensor([-0.4, 0.4, -0.4]))
    assert server.tolist() == [1, 2, 3]
    assert vector_of(module).tolist() == [1, 2, 3]


def test_two_flat_models_of_one_module_share_nothing():
    module = tiny()
    first, second = FlatModel(module, CPU), FlatModel(module, CPU)
    first.load(torch.zeros(3))
    assert second.vector.tolist() == [1, 2, 3]
    assert module.weight.data_ptr() != first.parameters[0].data_ptr()
    given = torch.ones(3)
    first.load(given)
    given.fill_(8.0)
    assert first.vector.tolist() == [1, 1, 1]


def test_images_are_laid_out_for_the_model():
    images = torch.randn(2, 3, 4, 4)
    flat, conv = FlatModel(tiny(), CPU), FlatModel(nn.Conv2d(3, 1, 3), CPU)
    assert flat.laid_out(images).is_contiguous()
    assert conv.laid_out(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.laid_out(images), images)


def test_one_grey_channel_gets_the_strides_that_make_pooling_fast():
    # is_contiguous says yes to both layouts here; what a convolution hands on shows which it saw.
    grey, conv = torch.randn(2, 1, 8, 8), FlatModel(nn.Conv2d(1, 4, 3, padding=1), CPU)
    output = conv.module(conv.laid_out(grey))
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert not output.is_contiguous()


def test_only_images_are_laid_out_channels_last():
    conv = FlatModel(nn.Sequential(nn.Conv2d(3, 1, 3), nn.Linear(2, 2)), CPU)
    for shape in ((5, 7), (5, 3, 4)):
        x = torch.randn(shape)
        assert conv.laid_out(x).is_contiguous()
        assert torch.equal(conv.laid_out(x), x)


def test_a_model_for_inputs_is_the_same_model_without_the_scale():
    images = Split(torch.full((2, 1, 1, 1), 20, dtype=torch.uint8), torch.zeros(2), divisor=10)
    scale = Normalisation(torch.tensor(1.0), torch.tensor(0.25))
    model = FlatModel(nn.Linear(1, 1), CPU, scale)
    assert model.arrange(images).flatten().tolist() == [4.0, 4.0]
    bare = model.for_inputs()
    assert bare.arrange(images).flatten().tolist() == [2.0, 2.0]  # 20 / 10, as it is
    assert bare.arrange(images.with_x(torch.ones(2, 1))).flatten().tolist() == [1.0, 1.0]
    assert model.arrange(images.with_x(torch.ones(2, 1))).flatten().tolist() == [0.0, 0.0]
    assert bare.vector is model.vector


def test_a_state_dict_makes_the_round_trip():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(8, 3))
    module.register_buffer("scale", torch.tensor([7, 8]))
    wanted = torch.randn(len(vector_of(module)), generator=torch.Generator().manual_seed(0))
    before = vector_of(module)
    states = state_dict_of(module, wanted)
    assert list(states) == list(module.state_dict())
    assert states["scale"].tolist() == [7, 8]
    assert torch.equal(vector_of(module), before)
    other = copy.deepcopy(module)
    other.load_state_dict(states)
    assert torch.equal(vector_of(other), wanted)
    states["3.bias"].fill_(0.0)
    assert torch.equal(vector_of(other), wanted)


def test_running_statistics_travel_in_the_vector_after_the_parameters():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model = FlatModel(module, CPU)
    assert len(model.vector) == 8 + 4 + 4  # Linear, BatchNorm's parameters, mean and variance
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    model.module.train()
    expected = 0.1 * model.module[0](x).mean(dim=0)  # momentum 0.1, from a mean of 0
    model.module(x)
    torch.testing.assert_close(model.vector[-4:-2], expected)
    assert torch.equal(module[1].running_mean, torch.zeros(2))  # the caller's is untouched


def test_counters_start_anew_with_every_client():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=None))
    model = FlatModel(module, CPU)
    start, x = model.vector.clone(), torch.randn(4, 3)
    model.module.train()
    ends = []
    for _ in range(2):  # momentum=None averages over the batches counted so far
        model.load(start)
        model.module(x)
        ends.append(model.vector.clone())
    assert torch.equal(*ends)
    assert int(module[1].num_batches_tracked) == 0


def test_a_module_with_nothing_to_train_is_refused():
    for module in (nn.Flatten(), tiny().requires_grad_(False)):
        with pytest.raises(InputError, match="has no trainable parameters"):
            vector_of(module)
        with pytest.raises(InputError, match="has no trainable parameters"):
            FlatModel(module, CPU)


def test_other_precisions_are_refused():
    with pytest.raises(InputError, match="not float32"):
        vector_of(tiny().double())
