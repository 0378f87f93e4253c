"""Between an `nn.Module` and the flat vector `[d]` that clients and server exchange.

The vector holds the trainable parameters in the order of `module.parameters()`. Buffers are not in
it: a module whose buffers training would change (BatchNorm's running statistics) is refused, since
aggregation would silently mix one client's parameters with another's statistics.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from fedexp.checks import InputError


def vector_of(module: nn.Module) -> Tensor:
    """The trainable parameters of `module` as a new vector `[d]` float32, never a view."""
    return torch.cat([p.detach().reshape(-1) for p in _trainable(module)]).clone()


class FlatModel:
    """A private copy of a module whose parameters are views of one private vector `[d]`.

    Writing `vector` sets the model; a step on `parameters` moves `vector`. The copy is what keeps
    local training from editing the server's vector through shared memory: with
    `torch.nn.utils.vector_to_parameters` every delta would be zero while accuracy still rises.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = copy.deepcopy(module).to(device)
        refuse_changing_buffers(self.module)
        self.parameters = _trainable(self.module)
        self.vector = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        offset = 0
        for parameter in self.parameters:
            end = offset + parameter.numel()
            parameter.data = self.vector[offset:end].view(parameter.shape)
            offset = end

        convolutional = any(isinstance(layer, nn.Conv2d) for layer in self.module.modules())
        self._layout = torch.channels_last if convolutional else torch.contiguous_format

    def load(self, vector: Tensor) -> None:
        """Set the model to a copy of `vector` `[d]`."""
        self.vector.copy_(vector)

    def arrange(self, x: Tensor) -> Tensor:
        """Images `[n, C, H, W]` in the memory layout in which this model is fastest.

        Channels last for convolutions: on a CPU, max pooling over the other layout is about ten
        times slower.
        """
        return x.contiguous(memory_format=self._layout)


def state_dict_of(module: nn.Module, vector: Tensor) -> OrderedDict[str, Tensor]:
    """The state dict of `module` with its parameters taken from `vector` `[d]`, as copies."""
    model = FlatModel(module, torch.device("cpu"))
    model.load(vector)
    return OrderedDict((name, t.detach().clone()) for name, t in model.module.state_dict().items())


def refuse_changing_buffers(module: nn.Module) -> None:
    """Raise InputError for a layer that keeps running statistics; name it and the way out."""
    for name, layer in module.named_modules():
        if getattr(layer, "track_running_stats", False):
            raise InputError(
                f"layer {name} ({type(layer).__name__}) keeps running statistics, which clients "
                "cannot average like parameters: use GroupNorm, or track_running_stats=False",
                "model",
                type(module).__name__,
            )


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("has no trainable parameters", "model", type(module).__name__)
    if any(p.dtype != torch.float32 for p in parameters):
        raise InputError("has parameters that are not float32", "model", type(module).__name__)
    return parameters
