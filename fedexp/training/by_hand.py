"""SGD on a perceptron without autograd: forward, backward and step are matrix products.

    z_l = a_(l-1) W_l^T + b_l,    a_l = max(z_l, 0),    a_0 the examples, z_L the logits
    d_L = the slope of the batch's mean loss at z_L,    d_(l-1) = d_l W_l [a_(l-1) > 0]
    W_l <- k W_l - lr d_l^T a_(l-1),    b_l <- k b_l - lr sum of d_l's rows

with k = 1 - lr (weight_decay + proximal). The gradient `[d]` is never written: it is added to the
weights by the product that makes it, which saves three passes over them a step. With momentum, the
products are added to the velocity instead, and that to the weights.

It is backpropagation as in Rumelhart, Hinton and Williams, Nature 323, 1986, equal to autograd's up
to rounding. A model is trained so if it is made of torch's own `Flatten`, `Linear` and `ReLU` in
that order, all of it is trained, nothing hooks into it, and one step on made-up numbers agrees with
autograd; every process finds the same, for neither the data nor the round has a say in it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedexp.core.capabilities import slope_of
from fedexp.core.examples import Split
from fedexp.core.flat import FlatModel
from fedexp.core.protocols import Model
from fedexp.core.rng import torch_generator
from fedexp.core.step_rule import StepRule
from fedexp.core.types import ClientTask
from fedexp.training.steps import Step, Work, batches_of

TOLERANCE = 1e-4  # of the length of a step; rounding leaves 1e-6

log = logging.getLogger(__name__)

_threshold_backward = torch.ops.aten.threshold_backward.default
_AGREES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@final
@dataclass(frozen=True)
class Layer:
    """A linear layer; its tensors are views of a vector `[d]` and no parameters."""

    weight: Tensor  # [p, q]
    bias: Tensor | None = None  # [p]

    def add(self, by_unit: Tensor, a: Tensor, ones: Tensor, keep: float, rate: float) -> None:
        """Become keep * self + rate * the gradient of slopes `[p, n]` at inputs a `[n, q]`."""
        self.weight.addmm_(by_unit, a, beta=keep, alpha=rate)
        if self.bias is not None:
            self.bias.addmv_(by_unit, ones, beta=keep, alpha=rate)


@final
@dataclass(frozen=True)
class DescentByHand:
    """A `StepSource` that moves the model itself, so that its steps bring no gradients.

    Args:
        rule: what a step makes of its gradients.
    """

    rule: StepRule

    def __call__(
        self, model: Model, shard: Split, task: ClientTask, work: Work
    ) -> Generator[Step, None, None]:
        """As many steps as the work has; the model has to be one that `can_be_trained`."""
        rule, w = self.rule, model.vector
        pull = rule.weight_decay + rule.proximal
        layers = _layers(model.parameters, w)
        start = w.clone() if rule.proximal else w
        velocity = torch.zeros_like(w) if rule.momentum else w
        moved = _layers(model.parameters, velocity)
        goal, batches = batches_of(model, shard, task, work)
        slope_at, ones = slope_of(goal), w.new_empty(0)
        for x, y in batches:
            inputs, logits = _forward(layers, x)
            loss, slope = slope_at(logits, y)
            if len(ones) != len(slope):  # a small model's step is made of what each call costs
                ones = slope.new_ones(len(slope))
            if rule.momentum:
                _backward(layers, moved, inputs, slope, ones, rule.momentum, 1.0)
                if pull:
                    velocity.add_(w, alpha=pull)
                if rule.proximal:
                    velocity.sub_(start, alpha=rule.proximal)
                w.add_(velocity, alpha=-rule.lr)
            else:
                _backward(layers, moved, inputs, slope, ones, 1 - rule.lr * pull, -rule.lr)
                if rule.proximal:
                    w.add_(start, alpha=rule.lr * rule.proximal)
            del x, inputs  # or the next examples could not lie where these do
            yield Step((), loss, y.shape[0])


def can_be_trained(model: Model, example: Tensor) -> bool:
    """Whether `DescentByHand` does to `model` what autograd does.

    Args:
        model: as in a trainer's call.
        example: `[1, *shape]`, of which only shape and device count.
    """
    if not _is_perceptron(model, example.dim() > 2):
        return False
    if model.module not in _AGREES:
        _AGREES[model.module] = agrees = _agrees_with_autograd(model.module, example)
        if not agrees:
            log.warning("training: a step by hand differs from autograd's here; autograd is used")
    return _AGREES[model.module]


def _is_perceptron(model: Model, images: bool) -> bool:
    """[Flatten], Linear, ReLU, Linear, ..., Linear: torch's own, trained, and seen by nobody."""
    modules = list(model.module.modules())
    parts = modules[1:]
    if type(model.module) is not nn.Sequential or any(map(_is_watched, modules)):
        return False
    if parts and type(parts[0]) is nn.Flatten:
        if (parts[0].start_dim, parts[0].end_dim) != (1, -1):
            return False
        parts, images = parts[1:], False
    kinds = [type(part) for part in parts]
    expected = [nn.ReLU if place % 2 else nn.Linear for place in range(len(parts))]
    if images or len(parts) % 2 == 0 or kinds != expected:
        return False
    # A frozen parameter is not among the model's, and one that two layers share is there once.
    held = [id(p) for part in parts[::2] for p in part.parameters()]
    return held == [id(p) for p in model.parameters]


def _is_watched(module: nn.Module) -> bool:
    """Whether anything beside its forward pass would happen when a module is called."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        *(p._backward_hooks for p in module._parameters.values() if p is not None),
    )
    everywhere = torch.nn.modules.module._has_any_global_hook()
    return everywhere or any(hooks) or "forward" in vars(module)


def _layers(parameters: list[nn.Parameter], vector: Tensor) -> list[Layer]:
    """Views of `vector` `[d]` in the shapes of a perceptron's parameters."""
    views = [
        part.view(p.shape)
        for part, p in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True)
    ]
    followed = [*views[1:], views[0]]  # a bias comes after its weight
    return [
        Layer(view, after if after.dim() == 1 else None)
        for view, after in zip(views, followed, strict=True)
        if view.dim() == 2
    ]


def _forward(layers: list[Layer], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What goes into each layer, and the logits, for examples `[n, *shape]`."""
    a = x.flatten(1)
    inputs = [a]
    for layer in layers[:-1]:
        a = F.linear(a, layer.weight, layer.bias).relu_()
        inputs.append(a)
    return inputs, F.linear(a, layers[-1].weight, layers[-1].bias)


def _backward(
    layers: list[Layer],
    moved: list[Layer],
    inputs: list[Tensor],
    d: Tensor,
    ones: Tensor,
    keep: float,
    rate: float,
) -> None:
    """Add the gradients, by slopes `d` `[n, classes]`, to `moved`, from the last layer on.

    `layers` are read before they move; `ones` are `[n]`.
    """
    for place in range(len(layers) - 1, 0, -1):
        a = inputs[place]
        before = torch.mm(d, layers[place].weight)
        moved[place].add(d.t(), a, ones, keep, rate)
        d = _threshold_backward(before, a, 0)  # where a is NaN the slope stays, as in autograd
    moved[0].add(d.t(), inputs[0], ones, keep, rate)


def _agrees_with_autograd(module: nn.Module, example: Tensor) -> bool:
    """One step on a copy with made-up weights, examples and slopes, both ways."""
    copy, g = FlatModel(module, example.device), torch_generator(0)
    copy.module.train()
    copy.vector.copy_(torch.randn(len(copy.vector), generator=g) / 8)
    x = torch.randn(3, *example.shape[1:], generator=g).to(example.device)
    logits = copy.module(x)
    slope = torch.randn(logits.shape, generator=g).to(logits)
    gradients = torch.autograd.grad((logits * slope).sum(), copy.parameters)
    expected = torch.cat([gradient.flatten() for gradient in gradients])
    found = torch.zeros_like(copy.vector)
    layers, moved = (_layers(copy.parameters, v) for v in (copy.vector, found))
    _backward(layers, moved, _forward(layers, x)[0], slope, torch.ones(3).to(x), 1.0, 1.0)
    return bool((found - expected).norm() <= TOLERANCE * expected.norm())
