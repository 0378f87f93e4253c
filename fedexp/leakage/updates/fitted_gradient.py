"""The gradients met on several local steps, each weighed as explains the update best.

    f(x) = sum_t a_t(x) g_t(x),   a = argmin_a || sum_t a_t g_t / ||g_t|| - g* ||^2 + RIDGE ||a||^2
    (a_t divided by ||g_t|| after)

g_t is the gradient of the images x of a step at the weights w_t that those before lead to, g* the
direction of the update. An attack that follows the slope of the exact update derives through
w_1, w_2, ... too, and at a large learning rate that slope says nothing: a step overshoots, the next
gradient is large or none as the output there falls, and units switch on and off. So
here w_t and a_t are held while x moves and found anew for every x. At the true images the update is
such a sum.

The weights are fitted as in variable projection (Golub and Pereyra, SIAM J. Numer. Anal. 10(2),
1973), of which this takes the part of the slope that leaves them as they are. The steps are those
of Geiping et al., "Inverting Gradients", NeurIPS 2020, section 6. Holding and fitting are ours;
what they gain is in docs/results/leakage.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedexp.leakage.observation import Knowledge
from fedexp.leakage.updates.expected_update import Batch, gradients_along

RIDGE = 0.03  # beside squared cosines of 1: steps that point alike share their weight
TINY = 1e-24  # of a squared norm: a step without gradient gets no weight


def fitted_gradient(
    knowledge: Knowledge,
    parameters: Mapping[str, Tensor],
    batches: Sequence[Batch],
    observed: Mapping[str, Tensor],
    seen: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The sum nearest to what was observed, differentiable in the images alone.

    Args:
        knowledge: the model and the step rule.
        parameters: by name, floating point of one dtype.
        batches: of each local step, the pixels `[b, C, H, W]` in that dtype, in [0, 1], and the
            targets, `[b]` int64, or probabilities `[b, classes]` in that dtype.
        observed: the direction of the update, by parameter and flat, of norm 1 in all.
        seen: what of it was sent, alike, 1 or 0; None: all.

    Returns:
        For every parameter `[its numbers]`, 0 where nothing was sent.
    """
    met = list(gradients_along(knowledge, parameters, batches, held=True))
    rows = {
        name: torch.stack([gradient[name].reshape(-1) for gradient in met]) for name in parameters
    }
    if seen is not None:
        rows = {name: row * seen[name] for name, row in rows.items()}
    weights = _weights({name: row.detach() for name, row in rows.items()}, observed)
    return {name: weights @ row for name, row in rows.items()}


def _weights(rows: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tensor:
    """What each step weighs `[steps]`, from its gradients `[steps, numbers]` by parameter."""
    products = torch.stack([row @ row.T for row in rows.values()]).sum(dim=0)
    along = torch.stack([row @ observed[name] for name, row in rows.items()]).sum(dim=0)
    norms = products.diagonal().clamp_min(TINY).sqrt()
    ridge = RIDGE * torch.eye(len(norms), dtype=norms.dtype, device=norms.device)
    cosines = products / norms[:, None] / norms
    found: Tensor = torch.linalg.solve(cosines + ridge, along / norms)
    return found / norms
