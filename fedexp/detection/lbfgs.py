"""The Hessian of L-BFGS times a vector, from steps and changes of the gradient.

    B v = s v - [s S  Y] [[s S^T S, L], [L^T, -D]]^-1 [s S^T v; Y^T v]

    S, Y: steps and changes of the gradient, a column each; L, D: what lies below the diagonal of
    S^T Y, and on it; s = y^T s' / s'^T s' of the last pair

Source: Byrd, Nocedal and Schnabel, "Representations of Quasi-Newton Matrices and their Use in
Limited Memory Methods", Mathematical Programming 63, 1994, theorem 2.3 with B_0 = s I. Where the
matrix in the middle cannot be inverted, its pseudo-inverse stands in.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hessian_times(steps: Tensor, changes: Tensor, v: Tensor) -> Tensor:
    """`B v` `[d]`, from steps and changes `[m, d]`, the oldest first, and `v` `[d]`; all float64.

    On the steps themselves it is right, whatever else:

    >>> steps, curvature = torch.eye(3, dtype=torch.float64)[:2], torch.tensor([2.0, 3.0, 4.0])
    >>> bool(torch.allclose(hessian_times(steps, steps * curvature, steps[1]), steps[1] * 3))
    True
    """
    products = steps @ changes.T
    scale = products[-1, -1] / (steps[-1] @ steps[-1])
    below = products.tril(-1)
    upper = torch.cat([scale * (steps @ steps.T), below], dim=1)
    lower = torch.cat([below.T, -products.diagonal().diag()], dim=1)
    right = torch.cat([scale * (steps @ v), changes @ v])
    weights = torch.linalg.pinv(torch.cat([upper, lower])) @ right
    m = len(steps)
    answer: Tensor = scale * v - scale * (weights[:m] @ steps) - weights[m:] @ changes
    return answer
