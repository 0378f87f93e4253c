"""Between an `nn.Module` and the flat vector `[d]` that clients and server exchange.

The vector holds the trainable parameters in the order of `module.parameters()`, then the
floating-point buffers in the order of `module.buffers()`: running statistics, which clients then
average like parameters. Whether that is wanted is the config's to say (`buffers`). Buffers of whole
numbers, such as BatchNorm's count of batches, are not exchanged: every client starts from their
initial values.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.normalise import Normalisation
from fedexp.core.protocols import Task


def vector_of(module: nn.Module) -> Tensor:
    """The vector of `module` as a new tensor `[d]` float32, never a view."""
    return torch.cat([t.detach().reshape(-1) for t in _exchanged(module)]).clone()


class FlatModel:
    """A private copy of a module whose parameters are views of one private vector `[d]`.

    Writing `vector` sets the model; a step on `parameters` moves `vector`. The copy is what keeps
    local training from editing the server's vector through shared memory: with
    `torch.nn.utils.vector_to_parameters` every delta would be zero while accuracy still rises.

    Args:
        module: the architecture and the first values.
        device: where the copy lies.
        normalisation: what examples go through before the module sees them.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        normalisation: Normalisation | None = None,
    ) -> None:
        self.module = copy.deepcopy(module).to(device)
        self.parameters = _trainable(self.module)
        exchanged = _exchanged(self.module)
        self.vector = torch.cat([t.detach().reshape(-1) for t in exchanged])
        offset = 0
        for tensor in exchanged:
            end = offset + tensor.numel()
            tensor.data = self.vector[offset:end].view(tensor.shape)
            offset = end
        self._remember_places()
        counts = [b for b in self.module.buffers() if not b.is_floating_point()]
        self._counts = [(b, b.clone()) for b in counts]

        self._convolutional = any(isinstance(m, nn.Conv2d) for m in self.module.modules())
        self._normalisation = (normalisation or Normalisation.none()).to(device)

    def load(self, vector: Tensor) -> None:
        """Set the model to a copy of `vector` `[d]`; of who had it before nothing is left."""
        self.vector.copy_(vector)
        for parameter in self.parameters:
            parameter.grad = None
            parameter.requires_grad_(True)
        for buffer, initial in self._counts:
            buffer.copy_(initial)

    def state_dict_of(self, vector: Tensor) -> OrderedDict[str, Tensor]:
        """The module's state dict at `vector` `[d]`, as copies."""
        self.load(vector)
        return OrderedDict((k, t.detach().clone()) for k, t in self.module.state_dict().items())

    def is_in_place(self) -> bool:
        """Whether its numbers still lie where they did, so that `vector` is the model.

        >>> model = FlatModel(nn.Linear(2, 1), torch.device("cpu"))
        >>> weight = model.parameters[0]
        >>> with torch.no_grad():
        ...     weight -= 0.1
        >>> model.is_in_place()
        True
        >>> weight.data = weight.data - 0.1
        >>> model.is_in_place()
        False
        """
        return self._places_now() == self._places

    def _remember_places(self) -> None:
        self._layers = [*self.module.modules()]
        named = [named for m in self._layers for named in (m._parameters, m._buffers)]
        self._tensors = [(tensors, name) for tensors in named for name in tensors]
        self._places = self._places_now()

    def _places_now(self) -> list[int]:
        found = [tensors.get(name) for tensors, name in self._tensors]
        return [self.vector.data_ptr(), *(0 if t is None else t.data_ptr() for t in found)]

    def in_training(self) -> None:
        """Have every layer in training mode, which costs as much as a step to say once more."""
        if not all(layer.training for layer in self._layers):
            self.module.train()

    def arrange(self, part: Split) -> Tensor:
        """Stored examples as the module takes them `[n, *shape]`: the one place that does so.

        Float32, shifted and scaled, in the memory layout in which the module is fastest.
        """
        return self.normalised(part, self._layout_for(part.x))

    def normalised(self, part: Split, layout: torch.memory_format) -> Tensor:
        """The same in another memory layout, for who computes otherwise than by the module."""
        return self._normalisation.arranged(part, layout)

    def laid_out(self, x: Tensor) -> Tensor:
        """Inputs of the module `[n, *shape]` in the memory layout in which it is fastest.

        With one channel both layouts are the same memory, and only the strides tell the layers
        which one is meant; `contiguous` would leave them as they are, a copy sets them.
        """
        return torch.empty_like(x, memory_format=self._layout_for(x)).copy_(x)

    def for_inputs(self) -> Self:
        """The same model, of the same memory, for examples that are shifted and scaled already."""
        same = copy.copy(self)
        same._normalisation = Normalisation.none().to(self.vector.device)
        return same

    def apart(self) -> Self:
        """The same tensors in a module of its own: whoever watches it sees no pass of this one.

        >>> model = FlatModel(nn.Linear(2, 1), torch.device("cpu"))
        >>> other = model.apart()
        >>> other.module is model.module, other.module.weight is model.module.weight
        (False, True)
        """
        other = copy.copy(self)
        shared = [*self.module.parameters(), *self.module.buffers()]
        other.module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in shared})
        other._remember_places()
        return other

    def _layout_for(self, x: Tensor) -> torch.memory_format:
        """Channels last for convolutions over images.

        On a CPU, max pooling over the other layout is about ten times slower.
        """
        images = self._convolutional and x.dim() == 4
        return torch.channels_last if images else torch.contiguous_format


class TaskModel(FlatModel):
    """A flat model that also knows what its outputs mean.

    Args:
        module: the architecture and the first values.
        device: where the copy lies.
        task: what labels mean.
        normalisation: what examples go through before the module sees them.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        task: Task,
        normalisation: Normalisation | None = None,
    ) -> None:
        super().__init__(module, device, normalisation)
        self.task = task


def state_dict_of(module: nn.Module, vector: Tensor) -> OrderedDict[str, Tensor]:
    """The state dict of `module` with its parameters taken from `vector` `[d]`, as copies."""
    return FlatModel(module, torch.device("cpu")).state_dict_of(vector)


def layers_with_running_statistics(module: nn.Module) -> list[str]:
    """Name and class of each."""
    return [
        f"{name} ({type(layer).__name__})"
        for name, layer in module.named_modules()
        if getattr(layer, "track_running_stats", False)
    ]


def _exchanged(module: nn.Module) -> list[Tensor]:
    return [*_trainable(module), *(b for b in module.buffers() if b.is_floating_point())]


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("has no trainable parameters", "model", type(module).__name__)
    floating = [*parameters, *(b for b in module.buffers() if b.is_floating_point())]
    if any(tensor.dtype != torch.float32 for tensor in floating):
        raise InputError(
            "has parameters or buffers that are not float32", "model", type(module).__name__
        )
    return parameters
