"""Which modules DP-SGD can train: every example's gradient must depend on that example alone.

Our own check, over all modules and not only those with something to train: Opacus' lets BatchNorm
pass when it is frozen or has no weights, though it still mixes the examples of a batch and keeps
statistics of them that leave the client without noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from fedexp.core.checks import InputError

GradSampler = Callable[[nn.Module, list[Tensor], Tensor], Mapping[nn.Parameter, Tensor]]
"""(layer, its inputs, the loss's gradient at its output) -> each parameter's `[n, *shape]`."""


def grad_samplers() -> Mapping[type[nn.Module], GradSampler]:
    """Opacus' formulas for per-example gradients of torch's layers that put the batch first."""
    from opacus.grad_sample import GradSampleModule

    # Opacus' own recurrent layers may put time first, and an EmbeddingBag takes two tensors.
    return {
        layer: sampler
        for layer, sampler in GradSampleModule.GRAD_SAMPLERS.items()
        if layer.__module__.startswith("torch.nn.") and layer is not nn.EmbeddingBag
    }


def trained_layers(module: nn.Module) -> dict[nn.Module, str]:
    """The layers that hold trainable parameters, with their names.

    Raises:
        InputError: DP-SGD cannot train `module`; names the first layer that is in the way.
    """
    covered = grad_samplers()
    holders: dict[nn.Parameter, str] = {}
    layers: dict[nn.Module, str] = {}
    for name, layer in module.named_modules():
        own = {n: p for n, p in layer.named_parameters(recurse=False) if p.requires_grad}
        shared = [holders[p] for p in own.values() if p in holders]
        reason = ""
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            reason = "mixes the examples of a batch, so that no example has a gradient of its own"
        elif getattr(layer, "track_running_stats", False):
            reason = "keeps statistics of the examples, which would leave without noise"
        # A subclass may compute anything, and so may a layer with further parameters.
        elif own and (type(layer) not in covered or own.keys() - {"weight", "bias"}):
            reason = f"has no known per-example gradients of {', '.join(own)}"
        elif own and getattr(layer, "padding_mode", "zeros") != "zeros":
            reason = f"has padding_mode={layer.padding_mode}, and only zeros is covered"
        elif shared:
            reason = f"shares a parameter with layer {shared[0]}"
        if reason:
            raise refusal(module, f"layer {name or '(the model itself)'}", layer, reason)
        if own:
            layers[layer] = name
            holders |= dict.fromkeys(own.values(), name)
    return layers


def refusal(module: nn.Module, place: str, layer: nn.Module, reason: str) -> InputError:
    """The error that says why DP-SGD cannot train `module`, and what would do."""
    advice = "DP-SGD needs plain torch layers, with GroupNorm in the place of BatchNorm"
    kind = type(layer).__name__
    return InputError(f"{place} ({kind}) {reason}; {advice}", "model", type(module).__name__)
