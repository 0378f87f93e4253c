"""SGD on a chain of layers without autograd: a forward pass, a backward pass, and the step in it.

For a perceptron (of `Flatten`, `Linear` and `ReLU`), of which it saves most, it is

    z_l = a_(l-1) W_l^T + b_l,    a_l = max(z_l, 0),    a_0 the examples, z_L the logits
    d_L = the slope of the batch's mean loss at z_L,    d_(l-1) = d_l W_l [a_(l-1) > 0]
    W_l <- k W_l - lr d_l^T a_(l-1),    b_l <- k b_l - lr sum of d_l's rows

with k = 1 - lr (weight_decay + proximal). The gradient of a linear layer is never written: it is
added to the weights by the product that makes it, which saves three passes over them a step. With
momentum, the products are added to the velocity instead, and that to the weights. Convolutions and
max pooling go by the kernels that autograd calls (`fedexp.training.written_out`).

It is backpropagation as in Rumelhart, Hinton and Williams, Nature 323, 1986, equal to autograd's up
to rounding. A model is trained so if it is a chain of torch's own layers, all of it is trained,
nothing hooks into it, and one step on made-up numbers agrees with autograd; every process finds the
same, for neither the data nor the round has a say in it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fedexp.core.capabilities import slope_of
from fedexp.core.examples import Split
from fedexp.core.flat import FlatModel
from fedexp.core.protocols import Model
from fedexp.core.rng import torch_generator
from fedexp.core.step_rule import StepRule
from fedexp.core.types import ClientTask
from fedexp.training.steps import Step, Work, batches_of
from fedexp.training.written_out import Move, can_be_written_out, written_out

TOLERANCE = 1e-4  # of the length of a step; rounding leaves 1e-6

log = logging.getLogger(__name__)

_AGREES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


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
        start = w.clone() if rule.proximal else w
        velocity = torch.zeros_like(w) if rule.momentum else w
        chain = written_out(model.module, model.parameters, w, velocity)
        keep, rate = (rule.momentum, 1.0) if rule.momentum else (1 - rule.lr * pull, -rule.lr)
        goal, batches = batches_of(model, shard, task, work)
        slope_at, ones = slope_of(goal), w.new_empty(0)
        for x, y in batches:
            logits, pile = chain.forward(x)
            loss, slope = slope_at(logits, y)
            if len(ones) != len(slope):  # a small model's step is made of what each call costs
                ones = slope.new_ones(len(slope))
            chain.backward(slope, pile, Move(keep, rate, ones))
            if rule.momentum:
                if pull:
                    velocity.add_(w, alpha=pull)
                if rule.proximal:
                    velocity.sub_(start, alpha=rule.proximal)
                w.add_(velocity, alpha=-rule.lr)
            elif rule.proximal:
                w.add_(start, alpha=rule.lr * rule.proximal)
            del x, pile  # or the next examples could not lie where these do
            yield Step((), loss, y.shape[0])


def can_be_trained(model: Model, example: Tensor) -> bool:
    """Whether `DescentByHand` does to `model` what autograd does.

    Args:
        model: as in a trainer's call.
        example: `[1, *shape]`, of which only shape and device count.
    """
    if not (can_be_written_out(model.module, example) and _is_seen_by_nobody(model)):
        return False
    if model.module not in _AGREES:
        _AGREES[model.module] = agrees = _agrees_with_autograd(model.module, example)
        if not agrees:
            log.warning("training: a step by hand differs from autograd's here; autograd is used")
    return _AGREES[model.module]


def _is_seen_by_nobody(model: Model) -> bool:
    """Whether all of it is trained, each part once, and nothing hooks into it."""
    # A frozen parameter is not among the model's, and one that two layers share is there once.
    held = [id(p) for part in model.module.children() for p in part.parameters()]
    watched = any(map(_is_watched, model.module.modules()))
    return not watched and held == [id(p) for p in model.parameters]


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
    chain = written_out(copy.module, copy.parameters, copy.vector, found)
    chain.backward(slope, chain.forward(x)[1], Move(1.0, 1.0, torch.ones(3).to(x)))
    return bool((found - expected).norm() <= TOLERANCE * expected.norm())
