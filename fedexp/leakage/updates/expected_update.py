"""The update that given images would have led to, differentiable in the images and their labels.

    g(w) = 1/b sum_j c_j grad_w loss(f_w(x_j), y_j),   c_j = min(1, C / ||grad_j||), or 1
    w_0 = the round's model,   w_(t+1) by the step rule (w_t - lr g(w_t)),   delta = w_E - w_0

x_j pixels in [0, 1], y_j labels or soft labels, b the batch of the step, E the local steps.
Inversion attacks move x until delta is the one observed. One step reads delta as a gradient (Zhu et
al., "Deep Leakage from Gradients", NeurIPS 2019); unrolling the E steps is the attack on federated
averaging of Geiping et al., "Inverting Gradients", NeurIPS 2020, section 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from fedexp.leakage.observation import Knowledge

Batch = tuple[Tensor, Tensor]  # pixels [b, C, H, W] in [0, 1] and their targets, of one step


def expected_gradient(
    knowledge: Knowledge, parameters: Mapping[str, Tensor], pixels: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """The mean gradient of the loss at `parameters`, differentiable in all three.

    Args:
        knowledge: the model, its normalisation and the clip norm count here.
        parameters: by name, floating point of one dtype.
        pixels: `[b, C, H, W]` in that dtype, in [0, 1].
        targets: `[b]` int64, or probabilities `[b, classes]` in that dtype.

    Returns:
        A gradient for every parameter, of its shape.
    """
    if knowledge.clip_norm is not None:
        return _clipped_gradient(knowledge, parameters, pixels, targets, knowledge.clip_norm)

    def loss(parameters: Mapping[str, Tensor]) -> Tensor:
        return knowledge.task.loss(knowledge.logits(parameters, pixels), targets)

    return dict(grad(loss)(dict(parameters)))


def _clipped_gradient(
    knowledge: Knowledge,
    parameters: Mapping[str, Tensor],
    pixels: Tensor,
    targets: Tensor,
    clip_norm: float,
) -> dict[str, Tensor]:
    def loss(parameters: Mapping[str, Tensor], pixels: Tensor, target: Tensor) -> Tensor:
        logits = knowledge.logits(parameters, pixels.unsqueeze(0))
        return knowledge.task.loss(logits, target.unsqueeze(0))

    each = vmap(grad(loss), in_dims=(None, 0, 0))(dict(parameters), pixels, targets)
    squared = sum(g.flatten(1).square().sum(dim=1) for g in each.values())
    # Clamped under the root, whose derivative is infinite at 0.
    factors = clip_norm / squared.clamp_min(clip_norm**2).sqrt()
    return {name: torch.tensordot(factors, g, dims=1) / len(pixels) for name, g in each.items()}


def gradients_along(
    knowledge: Knowledge,
    parameters: Mapping[str, Tensor],
    batches: Sequence[Batch],
    held: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """The gradients met on local steps, one for each of `batches`, one after the other.

    Arguments as in `expected_gradient`. With `held` the weights that the steps lead to are taken as
    they are: each gradient is differentiable as if its weights did not depend on the images.
    """
    rule, here = knowledge.rule, dict(parameters)
    velocity = {name: torch.zeros_like(p) for name, p in here.items()}
    for step, (pixels, targets) in enumerate(batches):
        gradient = expected_gradient(knowledge, here, pixels, targets)
        yield gradient
        if step == len(batches) - 1:
            return
        velocity = {
            name: rule.momentum * velocity[name]
            + (g.detach() if held else g)
            + rule.weight_decay * here[name]
            + rule.proximal * (here[name] - parameters[name])
            for name, g in gradient.items()
        }
        here = {name: p - rule.lr * velocity[name] for name, p in here.items()}


def mean_gradient(
    knowledge: Knowledge,
    parameters: Mapping[str, Tensor],
    batches: Sequence[Batch],
) -> dict[str, Tensor]:
    """The mean of the gradients met on local steps, each with its weight in the update.

    Arguments as in `gradients_along`, result as in `expected_gradient`, which it is at one step. It
    is what an `Observation.gradient()` stands for.
    """
    if len(batches) == 1:
        return expected_gradient(knowledge, parameters, *batches[0])
    weights, _ = knowledge.rule.unrolled(len(batches))
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    met = gradients_along(knowledge, parameters, batches)
    for weight, gradient in zip(weights, met, strict=True):
        total = {name: t + weight * gradient[name] for name, t in total.items()}
    return {name: t / sum(weights) for name, t in total.items()}


def expected_update(
    knowledge: Knowledge, parameters: Mapping[str, Tensor], pixels: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """The delta (local - global) of `knowledge.local_steps` steps on the whole batch.

    Arguments and result as in `expected_gradient`.
    """
    weights, drift = knowledge.rule.unrolled(knowledge.local_steps)
    full = [(pixels, targets)] * knowledge.local_steps
    gradients = mean_gradient(knowledge, parameters, full)
    return {name: -sum(weights) * g - drift * parameters[name] for name, g in gradients.items()}
