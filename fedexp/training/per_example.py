"""Every example's own gradient, as far as its norm and a weighted sum need it.

A layer y = W a + b that an example passes at T places t, with g_t the gradient of that example's
loss at y_t, gives the example the gradient sum_t g_t a_t^T. Its squared norm needs only the factors
a `[T, D]` and g `[T, p]`,

    |sum_t g_t a_t^T|^2 = sum_ts (a_t . a_s) (g_t . g_s),

("ghost" clipping; T = 1 for a linear layer, the pixels of the output for a convolution), and so
does a weighted sum over the examples, which is one matrix product. Where T is large the gradients
themselves are smaller. Both ways take a single backward pass, and only to the layers' outputs; and
the sum is made of the very numbers that the norms are of, so what is clipped is what is summed.

Sources: Goodfellow, "Efficient Per-Example Gradient Computations", 2015 (T = 1). Li et al., "Large
Language Models Can Be Strong Differentially Private Learners", ICLR 2022, section 4 (any T). Bu,
Mao and Xu, "Scalable and Efficient Training of Large Convolutional Neural Networks with
Differential Privacy", NeurIPS 2022, section 4 (which is smaller: 2 T^2 against p D). Bu et al.,
"Differentially Private Optimization on Large Model at Small Cost", ICML 2023 (one backward pass).

Linear and Conv2d are written out here: Opacus 1.6 takes the strides of an image for those of
channels first, and gets gradients of a convolution over channels-last images wrong without a word.
The formulas of all other layers are Opacus' (`opacus.grad_sample`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from fedexp.training.private_layers import grad_samplers, refusal, trained_layers

ROUNDING = 2.0**-19  # 16 units in the last place, of the terms of a Gram matrix in float32

Targets = Mapping[nn.Parameter, Tensor]
"""Where to add each parameter's gradient."""


class PerExample(Protocol):
    """The gradients of one layer for each of n examples."""

    def squared_norms(self) -> Tensor:
        """`[n]`, over the layer's trainable parameters together."""

    def add_weighted_sum(self, weights: Tensor) -> None:
        """Add the sum over the examples, weighted by `weights` `[n]`, to the targets.

        An example of weight 0 adds nothing, also where its gradient is not finite.
        """


@final
@dataclass(frozen=True)
class Materialised:
    """The gradients themselves: pairs of `[n, *shape]` and the target `[*shape]`."""

    samples: Sequence[tuple[Tensor, Tensor]]

    def squared_norms(self) -> Tensor:
        """`[n]`."""
        return torch.stack([squared_norms(g) for g, _ in self.samples]).sum(dim=0)

    def add_weighted_sum(self, weights: Tensor) -> None:
        """One vector-matrix product a parameter."""
        some, kept = _weighted(weights)
        for gradients, target in self.samples:
            target.add_(torch.tensordot(some, gradients[kept], dims=1))


@final
@dataclass(frozen=True)
class Factors:
    """Only the factors: a `[n, T, D]`, g `[n, T, p]`.

    The targets are `weight` `[p, D]` and `bias` `[p]`, None where there is nothing to train.
    """

    a: Tensor
    g: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def materialised(self) -> Materialised:
        """The gradients that these are the factors of."""
        samples = []
        if self.weight is not None:
            samples.append((torch.bmm(self.g.transpose(1, 2), self.a), self.weight))
        if self.bias is not None:
            samples.append((self.g.sum(dim=1), self.bias))
        return Materialised(samples)

    def squared_norms(self) -> Tensor:
        """`[n]`, from the two Gram matrices of each example; a bias is a weight on a constant 1.

        Where the places cancel, so that what is left is as small as the rounding, the bound on the
        rounding is added: a norm that is too small would clip too little. At a single place nothing
        cancels.
        """
        if self.g.shape[1] == 1:
            found = squared_norms(self.g)
            if self.weight is not None:
                found = found * (squared_norms(self.a) + (1.0 if self.bias is not None else 0.0))
            return found
        gram = _gram(self.g)
        if self.weight is not None:
            gram = gram * (_gram(self.a) + (1.0 if self.bias is not None else 0.0))
        found = gram.sum(dim=(1, 2)).clamp_min_(0)
        lengths = gram.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt().sum(dim=1)  # sum_t |g_t a_t^T|
        rounding = ROUNDING * lengths.square_()
        return torch.where(rounding > found / 100, found + rounding, found)

    def add_weighted_sum(self, weights: Tensor) -> None:
        """One matrix product over all examples and places."""
        some, kept = _weighted(weights)
        weighted = (self.g[kept] * some[:, None, None]).flatten(0, 1)
        if self.weight is not None:
            self.weight.addmm_(weighted.T, self.a[kept].flatten(0, 1))
        if self.bias is not None:
            self.bias.add_(weighted.sum(dim=0))


@dataclass(frozen=True)
class _Call:
    """A layer's forward pass: what went in, and where its output stands in autograd's graph."""

    inputs: tuple[Tensor, ...]
    # Not the output itself: a ReLU in place would make that the ReLU's.
    output: GradientEdge


@final
class Watch:
    """Sees the forward passes of a module's trained layers; made by `watching`."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = trained_layers(module)
        self._module = module
        self._calls: dict[nn.Module, _Call] = {}

    def note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """The forward hook of every layer."""
        if layer in self._calls:
            raise self._refusal(layer, "is used twice in one pass")
        detached = tuple(tensor.detach() for tensor in inputs)
        self._calls[layer] = _Call(detached, get_gradient_edge(output))

    def gradients(self, losses: Tensor, targets: Targets, clipping: str) -> list[PerExample]:
        """Every layer's per-example gradients of `losses` `[n]`, and forget the pass.

        Args:
            losses: what the latest forward pass ended in.
            targets: where `add_weighted_sum` shall add.
            clipping: "ghost" keeps factors wherever a layer has them, "hooks" materialises, "auto"
                takes what is smaller.

        Raises:
            InputError: a layer was not called as a layer, or not with one tensor of n rows.
        """
        calls, self._calls = self._calls, {}
        for layer in self.layers:
            if layer not in calls:
                raise self._refusal(layer, "did not run, or its parameters were used elsewhere")
            inputs = calls[layer].inputs
            if len(inputs) != 1 or len(inputs[0]) != len(losses):
                raise self._refusal(layer, "does not take one tensor with a row for each example")
        outputs = [calls[layer].output for layer in self.layers]
        at_outputs = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        return [
            _per_example(layer, calls[layer].inputs[0], g, targets, clipping)
            for layer, g in zip(self.layers, at_outputs, strict=True)
            if g is not None
        ]

    def _refusal(self, layer: nn.Module, reason: str) -> Exception:
        return refusal(self._module, f"layer {self.layers[layer]}", layer, reason)


@contextmanager
def watching(module: nn.Module) -> Iterator[Watch]:
    """Watch `module` inside the block; nothing is left on it afterwards.

    Raises:
        InputError: `module` has a layer that DP-SGD cannot train.
    """
    watch = Watch(module)
    handles = [layer.register_forward_hook(watch.note) for layer in watch.layers]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def channels_last(parameter: Tensor, storage: Tensor) -> Tensor:
    """`storage` `[..., numel]` in the parameter's shape, a Conv2d's weights with the channels last.

    That is the order in which the factors of a convolution have them.
    """
    before = storage.shape[:-1]
    if parameter.dim() != 4:
        return storage.view(*before, *parameter.shape)
    outputs, inputs, height, width = parameter.shape
    return storage.view(*before, outputs, height, width, inputs).movedim(-1, -3)


def _per_example(
    layer: nn.Module, x: Tensor, g: Tensor, targets: Targets, clipping: str
) -> PerExample:
    if isinstance(layer, nn.Linear):
        a, g = _places(x), _places(g)
    elif isinstance(layer, nn.Conv2d) and layer.groups == 1:
        a, g = _patches(layer, x), g.permute(0, 2, 3, 1).flatten(1, 2)
    else:
        samples = grad_samplers()[type(layer)](layer, [x.contiguous()], g.contiguous())
        return Materialised([(g, targets[p]) for p, g in samples.items() if p in targets])
    found = {name: targets[p] for name, p in layer.named_parameters() if p in targets}
    weight = found.get("weight")
    if weight is not None and weight.dim() == 4:
        weight = weight.permute(0, 2, 3, 1).view(len(weight), -1)
    factors = Factors(a, g, weight, found.get("bias"))
    smaller = 2 * a.shape[1] ** 2 <= a.shape[2] * g.shape[2]
    keep = clipping == "ghost" or (clipping == "auto" and smaller)
    return factors if keep else factors.materialised()


def _weighted(weights: Tensor) -> tuple[Tensor, Tensor | slice]:
    """The weights that are not 0, and where they are: everywhere as a rule, without a copy."""
    there = weights != 0
    if bool(there.all()):
        return weights, slice(None)
    return weights[there], there


def _places(x: Tensor) -> Tensor:
    """`[n, ..., D]` as `[n, T, D]`."""
    return x.unsqueeze(1) if x.dim() == 2 else x.flatten(1, -2)


def _patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What a convolution sees at each place: `[n, C, H, W]` to `[n, T, kh * kw * C]`."""
    padded = F.pad(x, layer._reversed_padding_repeated_twice)
    x = padded.permute(0, 2, 3, 1).contiguous()  # channels last: long runs to copy
    n, height, width, channels = x.shape
    (kh, kw), (down, right) = layer.kernel_size, layer.stride
    dilate, widen = layer.dilation
    rows = (height - dilate * (kh - 1) - 1) // down + 1
    columns = (width - widen * (kw - 1) - 1) // right + 1
    column, row = channels, width * channels
    windows = x.as_strided(
        (n, rows, columns, kh, kw, channels),
        (height * row, down * row, right * column, dilate * row, widen * column, 1),
    )
    return windows.reshape(n, rows * columns, -1)


def squared_norms(x: Tensor) -> Tensor:
    """Of each of n tensors: `[n, *shape]` to `[n]`."""
    # Row by row first: one sum of millions of squares would lose digits, and always downwards.
    rows: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return rows.view(len(x), -1).square_().sum(dim=1)


def _gram(x: Tensor) -> Tensor:
    """Inner products of each example's rows: `[n, T, D]` to `[n, T, T]`."""
    return torch.bmm(x, x.transpose(1, 2))
