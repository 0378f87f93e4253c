"""Models of one architecture, stacked: one pass computes all of them.

Every trainable parameter is one tensor with the models in front, `[k, *shape]`, and `torch.func`
runs the module on all of them at once (`vmap` over `functional_call`): on a GPU one launch for k
clients, where k models one after the other are k launches of little work. What is not trained is
the module's own, the same for all.

The same arithmetic as in k modules, in another order: equal to float32's rounding, not to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from fedexp.core.capabilities import goes_by_labels
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.protocols import Task

PROBED = 3  # examples


class StackedModel:
    """`k` copies of a model, each with values of its own.

    Args:
        model: the architecture, what is not trained, and what labels mean; it is only read.
        k: how many.
    """

    def __init__(self, model: TaskModel, k: int) -> None:
        self._model, self._k = model, k
        self.task: Task = model.task
        self.device = model.vector.device
        self.names = [n for n, p in model.module.named_parameters() if p.requires_grad]
        self.shapes = [p.shape for p in model.parameters]
        self.sizes = [p.numel() for p in model.parameters]
        # Each by itself: a view of rows `[k, d]` would not lie in one piece.
        self.parameters = [
            torch.empty(k, *shape, device=self.device, requires_grad=True) for shape in self.shapes
        ]

    def __len__(self) -> int:
        return self._k

    def apart(self) -> Self:
        """The same models in a module of its own: whoever watches it sees no pass of this one."""
        other = copy.copy(self)
        other._model = self._model.apart()
        return other

    @property
    def d(self) -> int:
        """Numbers in one model."""
        return sum(self.sizes)

    @torch.no_grad()
    def load(self, starts: Tensor) -> None:
        """Set the models to `starts`, `[k, d]`, or `[d]` for one start of all."""
        for parameter, start in zip(self.parameters, self.by_parameter(starts), strict=True):
            parameter.copy_(start)

    @torch.no_grad()
    def write(self, starts: Tensor, rows: Tensor) -> None:
        """Write how far every model has moved from `starts` (as loaded) to `rows` `[k, d]`."""
        pieces = zip(
            self.parameters, self.by_parameter(starts), self.by_parameter(rows), strict=True
        )
        for parameter, start, moved in pieces:
            torch.sub(parameter, start, out=moved)

    def by_parameter(self, vectors: Tensor) -> list[Tensor]:
        """Vectors `[..., d]` as views in the shapes of the parameters, `[..., *shape]`."""
        pieces = vectors.split(self.sizes, dim=-1)
        return [
            piece.view(*vectors.shape[:-1], *shape)
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]

    def arrange(self, part: Split) -> Tensor:
        """Stored examples as the module takes them `[n, *shape]`, in the plain memory layout.

        A convolution over stacked images is one over as many groups of channels, in front.
        """
        return self._model.normalised(part, torch.contiguous_format)

    def training(self) -> None:
        """Before training."""
        self._model.module.train()

    def answer(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        """Logits `[a, b, classes]` of a models with `parameters`, each of own inputs `[a, b, ...]`.

        Raises:
            RuntimeError: the module cannot be run so.
        """
        logits: Tensor = vmap(self.of_one, randomness="error")(parameters, x)
        return logits

    def of_one(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        """Logits `[b, classes]` of one model, for `torch.func` to transform."""
        values = dict(zip(self.names, parameters, strict=True))
        logits: Tensor = functional_call(self._model.module, values, (x,))
        return logits


def mean_losses(
    model: StackedModel, parameters: list[Tensor], x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    """The loss of every model `[a]` on a batch of its own.

    Args:
        model: knows how to compute.
        parameters: of the a models.
        x: `[a, b, *shape]`, as the module takes them.
        y: `[a, b, ...]`, their labels.
        weights: `[a, b]`: one over the examples that count, and 0 where there is none.
    """
    logits = model.answer(parameters, x)
    losses = model.task.losses(logits.flatten(0, 1), y.flatten(0, 1)).view(weights.shape)
    return (losses * weights).sum(dim=1)


def why_not_stacked(model: TaskModel, part: Split) -> str:
    """Why a model cannot be trained as many at once; "" if it can, which is tried.

    Two models take a step's gradients on batches of 3 and of 2 examples, the smaller one padded,
    and both have to be those that the module gives by itself.

    Args:
        model: its values are left as they are.
        part: examples to try it on, at least one.
    """
    if len(model.vector) > sum(p.numel() for p in model.parameters):
        return "the model has buffers that clients exchange"
    few = part.between(0, min(PROBED, len(part)))
    if goes_by_labels(model.task, few.y):
        return "the task weighs each client's classes by its own counts"
    starts = torch.stack([model.vector, model.vector / 2])
    try:
        together = _gradients_together(model, starts, few)
        apart = _gradients_apart(model, starts, few)
    except Exception as error:  # whatever a person's module raises
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"torch.func.vmap cannot run the model ({reason})"
    finally:
        model.load(starts[0])
    pairs = zip(together, apart, strict=True)
    if all(torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in pairs):
        return ""
    return "an example's answer depends on what else is in its batch"


def _gradients_together(model: TaskModel, starts: Tensor, few: Split) -> Sequence[Tensor]:
    """Of both models `[2, *shape]`, the last example of the second one's batch filled up."""
    stacked = StackedModel(model, 2)
    stacked.training()
    stacked.load(starts)
    n, fewer = len(few), _fewer(few)
    x, y = (
        torch.stack([t, torch.cat([t[:fewer], t[: n - fewer]])])
        for t in (stacked.arrange(few), few.y)
    )
    weights = x.new_zeros(2, n)
    weights[0], weights[1, :fewer] = 1 / n, 1 / fewer
    losses = mean_losses(stacked, stacked.parameters, x, y, weights)
    return torch.autograd.grad(losses.sum(), stacked.parameters, materialize_grads=True)


def _gradients_apart(model: TaskModel, starts: Tensor, few: Split) -> Sequence[Tensor]:
    """The same by the module itself, on batches that are not padded."""
    gradients = []
    for start, batch in zip(starts, (few, few.between(0, _fewer(few))), strict=True):
        model.load(start)
        loss = model.task.loss(model.module(model.arrange(batch)), batch.y)
        gradients.append(torch.autograd.grad(loss, model.parameters, materialize_grads=True))
    return [torch.stack(pair) for pair in zip(*gradients, strict=True)]


def _fewer(few: Split) -> int:
    """Examples in the batch that is filled up."""
    return max(1, len(few) - 1)
