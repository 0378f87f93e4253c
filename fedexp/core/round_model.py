"""What the server knows of the model that a round's rows are changes of.

Most parts see rows as numbers. A detector that compares what single neurons learned, or what models
answer, is handed the architecture and the round's parameters with the rows (`Updates.model`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.flat import FlatModel
from fedexp.core.protocols import Task
from fedexp.core.workload import evaluation_batch


@final
@dataclass(frozen=True)
class OutputLayer:
    """Where the numbers of a model's last layer lie in a row."""

    weight_at: int  # of the first weight; they go neuron by neuron
    bias_at: int
    neurons: int
    inputs: int  # of a neuron

    def weights(self, rows: Tensor) -> Tensor:
        """`[n, d]` to `[n, neurons, inputs]`."""
        end = self.weight_at + self.neurons * self.inputs
        return rows[:, self.weight_at : end].view(len(rows), self.neurons, self.inputs)

    def biases(self, rows: Tensor) -> Tensor:
        """`[n, d]` to `[n, neurons]`."""
        return rows[:, self.bias_at : self.bias_at + self.neurons]

    @classmethod
    def of(cls, module: nn.Module) -> OutputLayer:
        """The last linear layer of the module.

        Raises:
            InputError: there is none, or it is frozen or without a bias.

        >>> OutputLayer.of(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))
        OutputLayer(weight_at=20, bias_at=30, neurons=2, inputs=5)
        """
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        places: dict[Tensor, int] = {}
        at = 0
        for parameter in module.parameters():
            if parameter.requires_grad:
                places[parameter] = at
                at += parameter.numel()
        if not layers or layers[-1].weight not in places or layers[-1].bias not in places:
            raise _no_output_layer(module)
        last = layers[-1]
        return cls(places[last.weight], places[last.bias], last.out_features, last.in_features)


def refuse_other_endings(module: nn.Module, x: Tensor) -> None:
    """Raise InputError for a model whose answers are not those of its last linear layer.

    Args:
        module: left as it is.
        x: a few examples as the model takes them, to try it on.
    """
    OutputLayer.of(module)
    moved = copy.deepcopy(module).eval()
    last = [layer for layer in moved.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        before = moved(x)
        last.bias.add_(torch.arange(1.0, last.out_features + 1))
        after = moved(x)
    expected = before + torch.arange(1.0, before.shape[1] + 1)
    if not torch.allclose(after, expected, rtol=1e-3, atol=1e-3):
        raise _no_output_layer(module)


def _no_output_layer(module: nn.Module) -> InputError:
    return InputError(
        "does not end in a linear layer with a bias, both trained, which the detector looks at; "
        "use another model, or another detector",
        "model",
        type(module).__name__,
    )


@final
@dataclass(frozen=True)
class RoundModel:
    """The shared model of a round."""

    params: Tensor  # [d] what the clients started from
    module: nn.Module  # the architecture; the weights in it mean nothing
    task: Task
    input_shape: tuple[int, ...]

    @property
    def output_layer(self) -> OutputLayer:
        """See `OutputLayer`."""
        return OutputLayer.of(self.module)

    def deltas(self, rows: Tensor) -> Tensor:
        """The part of the rows `[n, D]` that changes the model: `[n, d]`."""
        return rows[:, : len(self.params)]

    def probabilities(self, vectors: Iterable[Tensor], x: Tensor) -> Iterator[Tensor]:
        """What models `[d]` answer to inputs of the module `[m, *input_shape]`: `[m, classes]`."""
        model = FlatModel(self.module, self.params.device)
        model.module.eval()
        inputs = model.laid_out(x.to(self.params.device))
        size = evaluation_batch(self.params.device, inputs[0].numel())
        for vector in vectors:
            model.load(vector)
            with torch.no_grad():
                logits = [model.module(part) for part in inputs.split(size)]
                yield self.task.probabilities(torch.cat(logits))


@final
@dataclass(frozen=True)
class Architecture:
    """What stays of a `RoundModel` from round to round."""

    module: nn.Module
    task: Task
    input_shape: tuple[int, ...]

    def at(self, params: Tensor) -> RoundModel:
        """The model with these parameters `[d]`."""
        return RoundModel(params, self.module, self.task, self.input_shape)


@final
@dataclass(frozen=True)
class NoArchitecture:
    """Nobody looks into the model."""

    def at(self, params: Tensor) -> None:
        """No model."""


def model_of(model: RoundModel | None) -> RoundModel:
    """The model that came with the rows; raises InputError where none did."""
    if model is None:
        raise InputError("needs the model of the round, and rows came without it (Updates.model)")
    return model


def uniform_inputs(draws: Tensor) -> Tensor:
    """Numbers in [0, 1) to mean 0 and deviation 1, as examples are that were standardised."""
    return (draws - 0.5) * math.sqrt(12)
