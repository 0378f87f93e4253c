"""Products with the gradient that images would give, its linear layers' never written down.

A linear layer's gradient for n examples is d^T a, with a `[n, q]` what went in and d `[n, p]` the
slopes at its output. What a cosine needs of it are numbers that its two factors say:

    <d^T a, G> = <d, a G^T>,    ||d^T a||^2 = <d d^T, a a^T>

Most parameters of perceptrons and of many CNNs are in such layers, and to write and read p q
numbers several times an iteration, forwards and backwards, takes longer than all the rest.

Source: the norm as in Goodfellow, "Efficient Per-Example Gradient Computations", 2015, for one
example, and for several as the products of all pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from fedexp.leakage.observation import Knowledge

Layers = Mapping[str, nn.Linear]
SHOWN = 7  # images: as many rows as images, and hardly of anything else
WORTH_IT = 2**14  # numbers of a weight: below, they stay in the processor's cache

_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def linear_layers(knowledge: Knowledge) -> Layers:
    """By name, torch's own linear layers that are trained, called once, and given a row an image.

    Of no other is the gradient the product of two factors; and of a small one, or of many examples,
    it may as well be written. The model is shown images of zeros, outside of `torch.func`. Of one
    that cannot be vectorised there are none: how many rows a layer is given may hang on the images.
    """
    parameters = knowledge.parameters(torch.float32)
    most = max(WORTH_IT, 2 * knowledge.batch_size**2)  # the products of all pairs
    every = Counter(id(p) for _, p in knowledge.module.named_parameters(remove_duplicate=False))
    found = {
        name: layer
        for name, layer in knowledge.module.named_modules()
        if type(layer) is nn.Linear
        and "forward" not in vars(layer)
        and layer.weight.numel() >= most
        and f"{name}.weight" in parameters
        and all(every[id(p)] == 1 and p.requires_grad for p in layer.parameters())
    }
    if not found:
        return {}
    leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    images = knowledge.params.new_zeros(1, SHOWN, *knowledge.input_shape)
    held: set[str] = set()

    def holding(name: str) -> _Hook:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if name in held or len(inputs) != 1 or output.shape[:-1] != (SHOWN,):
                return None
            held.add(name)
            given = found[name]
            bias = None if given.bias is None else given.bias.detach()
            return F.linear(inputs[0], given.weight.detach(), bias)

        return hook

    with suppress(RuntimeError), torch.enable_grad(), _watching(found, holding):
        logits = vmap(lambda pixels: knowledge.logits(leaves, pixels))(images)
        # What still hangs on a weight does so past the call whose two factors are known.
        own = {f"{n}.{kind}": n for n in held for kind, _ in found[n].named_parameters()}
        slopes: Sequence[Tensor | None] = [None] * len(own)
        if own and logits.requires_grad:
            ask = [leaves[name] for name in own]
            slopes = torch.autograd.grad(logits.sum(), ask, allow_unused=True)
        past = {n for n, slope in zip(own.values(), slopes, strict=True) if slope is not None}
        return {n: layer for n, layer in found.items() if n in held - past}
    return {}


def products_with_gradient(
    knowledge: Knowledge,
    parameters: Mapping[str, Tensor],
    pixels: Tensor,
    targets: Tensor,
    wanted: Mapping[str, Tensor],
    layers: Layers,
) -> tuple[Tensor, Tensor]:
    """(<g, wanted>, ||g||^2), both `[]`, of the mean gradient g of the loss, without a clip norm.

    Differentiable in the images.

    Args:
        knowledge: the model and its normalisation.
        parameters: by name, floating point of one dtype.
        pixels: `[b, C, H, W]` in that dtype, in [0, 1].
        targets: as in `expected_gradient`.
        wanted: for every parameter a vector of as many numbers.
        layers: `linear_layers` of the model.
    """
    inside = {f"{name}.{kind}" for name in layers for kind in ("weight", "bias")}
    written = {name: p for name, p in parameters.items() if name not in inside}
    shifts = {
        name: pixels.new_zeros(len(pixels), layer.out_features) for name, layer in layers.items()
    }

    def loss(
        written: Mapping[str, Tensor], shifts: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        went_in: dict[str, Tensor] = {}

        def shifted(name: str) -> _Hook:
            def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                went_in[name] = inputs[0]
                return output + shifts[name]

            return hook

        with _watching(layers, shifted):
            logits = knowledge.logits({**parameters, **written}, pixels)
        return knowledge.task.loss(logits, targets), went_in

    (gradients, slopes), went_in = grad(loss, argnums=(0, 1), has_aux=True)(written, shifts)
    flat = {name: g.reshape(-1) for name, g in gradients.items()}
    along = [g @ wanted[name] for name, g in flat.items()]
    squared = [g @ g for g in flat.values()]
    for name, layer in layers.items():
        d, a = slopes[name], went_in[name]
        weight = wanted[f"{name}.weight"].view(layer.weight.shape)
        along.append((d * (a @ weight.T)).sum())
        squared.append(((d @ d.T) * (a @ a.T)).sum())
        if layer.bias is not None:
            of_bias = d.sum(dim=0)
            along.append(of_bias @ wanted[f"{name}.bias"])
            squared.append(of_bias @ of_bias)
    return torch.stack(along).sum(), torch.stack(squared).sum()


def _watching(layers: Layers, hook_of: Callable[[str], _Hook]) -> ExitStack:
    """`hook_of` each name is called after its layer, before hooks of the model's own."""
    stack = ExitStack()
    for name, layer in layers.items():
        stack.enter_context(layer.register_forward_hook(hook_of(name), prepend=True))
    return stack
