"""Layers whose passes are written out, forward and backward: what a step by hand is made of.

A layer puts what its way back needs on a pile, and takes it off again. On the way back it adds its
gradient, `rate` times, to `keep` times what was there before: to the weights themselves, or to a
velocity. torch's own kernels do the work, the ones that autograd would call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

_threshold_backward = torch.ops.aten.threshold_backward.default
_max_pool = torch.ops.aten.max_pool2d_with_indices.default
_max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
_convolution_backward = torch.ops.aten.convolution_backward.default


class Move(NamedTuple):
    """What becomes of numbers along their gradient: keep * numbers + rate * gradient."""

    keep: float
    rate: float
    ones: Tensor  # [n], for sums over the n examples


class Layer(Protocol):
    """A layer with its weights, if it has any, as views of a vector `[d]`."""

    def forward(self, x: Tensor, pile: list[Tensor]) -> Tensor:
        """Its output for `x`; what the way back needs goes on the pile."""

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move, wanted: bool) -> Tensor:
        """Move along the gradient, by the slope at the output; the slope at the input if wanted."""


@final
@dataclass(frozen=True)
class Affine:
    """x W^T + b."""

    weight: Tensor  # [p, q]
    bias: Tensor | None  # [p]
    moved_weight: Tensor
    moved_bias: Tensor | None

    def forward(self, x: Tensor, pile: list[Tensor]) -> Tensor:
        """`[n, q]` to `[n, p]`."""
        pile.append(x)
        return F.linear(x, self.weight, self.bias)

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move, wanted: bool) -> Tensor:
        """The gradient is never written: the product that makes it adds it."""
        before = torch.mm(slope, self.weight) if wanted else slope
        by_unit = slope.t()
        self.moved_weight.addmm_(by_unit, pile.pop(), beta=move.keep, alpha=move.rate)
        if self.moved_bias is not None:
            self.moved_bias.addmv_(by_unit, move.ones, beta=move.keep, alpha=move.rate)
        return before


@final
@dataclass(frozen=True)
class Convolution:
    """A convolution of images, as `nn.Conv2d`."""

    weight: Tensor  # [channels, inputs / groups, height, width]
    bias: Tensor | None
    moved_weight: Tensor
    moved_bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def forward(self, x: Tensor, pile: list[Tensor]) -> Tensor:
        """`[n, inputs, H, W]` to `[n, channels, H', W']`."""
        pile.append(x)
        options = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(x, self.weight, self.bias, *options)

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move, wanted: bool) -> Tensor:
        """Its gradient is small beside the work, and is written."""
        before, *gradients = _convolution_backward(
            slope,
            pile.pop(),
            self.weight,
            None if self.bias is None else list(self.bias.shape),
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            [wanted, True, self.bias is not None],
        )
        for moved, gradient in zip((self.moved_weight, self.moved_bias), gradients, strict=True):
            if moved is not None:
                if move.keep != 1:
                    moved.mul_(move.keep)
                moved.add_(gradient, alpha=move.rate)
        at_input: Tensor = before if wanted else slope
        return at_input


@final
@dataclass(frozen=True)
class MaxPooling:
    """The largest of each window, as `nn.MaxPool2d`."""

    window: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    ceil_mode: bool

    def forward(self, x: Tensor, pile: list[Tensor]) -> Tensor:
        """`[n, C, H, W]` to `[n, C, H', W']`."""
        options = (self.window, self.stride, self.padding, self.dilation, self.ceil_mode)
        largest: Tensor
        largest, places = _max_pool(x, *options)
        pile += (x, places)
        return largest

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move, wanted: bool) -> Tensor:
        """To where the largest was."""
        places, x = pile.pop(), pile.pop()
        options = (self.window, self.stride, self.padding, self.dilation, self.ceil_mode)
        before: Tensor = _max_pool_backward(slope, x, *options, places)
        return before


@final
@dataclass(frozen=True)
class Rectifier:
    """max(x, 0), in the place of x, which is the output of another layer and needed by nobody."""

    def forward(self, x: Tensor, pile: list[Tensor]) -> Tensor:
        """Of the same shape."""
        pile.append(x.relu_())
        return x

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move, wanted: bool) -> Tensor:
        """Where x is NaN the slope stays, as in autograd."""
        before: Tensor = _threshold_backward(slope, pile.pop(), 0)
        return before


@final
@dataclass(frozen=True)
class Flattening:
    """An example's numbers in a row, as `nn.Flatten`."""

    def forward(self, x: Tensor, pile: list[Tensor]) -> Tensor:
        """`[n, ...]` to `[n, q]`."""
        pile.append(x)
        return x.flatten(1)

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move, wanted: bool) -> Tensor:
        """In the input's shape."""
        return slope.view(pile.pop().shape)


def can_be_written_out(module: nn.Module, example: Tensor) -> bool:
    """Whether `written_out` has the passes of `module`, by what its parts are.

    torch's own `Conv2d`, `MaxPool2d`, `Flatten`, `Linear` and `ReLU` one after the other, each
    where its input has the shape for it, to a last `Linear`.

    Args:
        module: whose examples are like
        example: `[1, *shape]`.
    """
    parts = list(module.children())
    if type(module) is not nn.Sequential or not parts or type(parts[-1]) is not nn.Linear:
        return False
    flat, examples_own = example.dim() == 2, True  # what the parts so far have made of it
    for part in parts:
        kind = type(part)
        if kind in (nn.Conv2d, nn.MaxPool2d):
            fits = not flat and example.dim() == 4 and _is_ordinary(part)
        elif kind is nn.Linear:
            fits = flat
        elif isinstance(part, nn.Flatten):
            fits = kind is nn.Flatten and (part.start_dim, part.end_dim) == (1, -1)
        else:
            fits = kind is nn.ReLU and not examples_own
        if not fits:
            return False
        flat = flat or kind is nn.Flatten
        examples_own = examples_own and kind is nn.Flatten
    return True


def _is_ordinary(part: nn.Module) -> bool:
    """Whether a convolution or a pooling has none but options that `written_out` takes over."""
    if isinstance(part, nn.Conv2d):
        return part.padding_mode == "zeros" and not isinstance(part.padding, str)
    return isinstance(part, nn.MaxPool2d) and not part.return_indices


@final
@dataclass(frozen=True)
class Chain:
    """Layers one after the other."""

    layers: Sequence[Layer]
    first: int  # with weights

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits of examples `[n, *shape]`, and the pile for the way back."""
        pile: list[Tensor] = []
        for layer in self.layers:
            x = layer.forward(x, pile)
        return x, pile

    def backward(self, slope: Tensor, pile: list[Tensor], move: Move) -> None:
        """Move all layers, the last one first, by the slope `[n, classes]` at the logits."""
        for place in range(len(self.layers) - 1, self.first - 1, -1):
            slope = self.layers[place].backward(slope, pile, move, place > self.first)


def written_out(
    module: nn.Module, parameters: Sequence[Tensor], vector: Tensor, moved: Tensor
) -> Chain:
    """The layers of `module` with their weights in one vector, and what moves in another.

    Args:
        module: one that `can_be_written_out`.
        parameters: its own, in order; only shapes count.
        vector: `[d]` the weights.
        moved: `[d]` what gradients are added to; `vector` itself for plain steps.
    """
    numbers, moving = _views(parameters, vector), _views(parameters, moved)
    parts = list(module.children())
    first = next(k for k, part in enumerate(parts) if isinstance(part, nn.Linear | nn.Conv2d))
    return Chain([_layer(part, numbers, moving) for part in parts], first)


def _views(parameters: Sequence[Tensor], vector: Tensor) -> Iterator[Tensor]:
    parts = vector.split([p.numel() for p in parameters])
    return (part.view(p.shape) for part, p in zip(parts, parameters, strict=True))


def _layer(part: nn.Module, numbers: Iterator[Tensor], moving: Iterator[Tensor]) -> Layer:
    if isinstance(part, nn.Linear | nn.Conv2d):
        (weight, bias), (moved_weight, moved_bias) = (
            (next(views), next(views) if part.bias is not None else None)
            for views in (numbers, moving)
        )
        if isinstance(part, nn.Linear):
            return Affine(weight, bias, moved_weight, moved_bias)
        options = (list(part.stride), [*_pair(part.padding)], list(part.dilation), part.groups)
        return Convolution(weight, bias, moved_weight, moved_bias, *options)
    if isinstance(part, nn.MaxPool2d):
        shape = (part.kernel_size, part.stride, part.padding, part.dilation)
        window, stride, padding, dilation = ([*_pair(two)] for two in shape)
        return MaxPooling(window, stride, padding, dilation, part.ceil_mode)
    return Rectifier() if isinstance(part, nn.ReLU) else Flattening()
