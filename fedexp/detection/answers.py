"""How a client answers when the others move the model: an honest one pushes back.

An update is a step down the client's own loss F_k, so two of them differ by what the model did in
between:

    delta_k(t') - delta_k(t) ~ eta H_k (w_t - w_t')         H_k: the Hessian of F_k

and along the move itself by eta (w_t - w_t')^T H_k (w_t - w_t'), which is positive where the loss
bends up: the further others have pulled the model away from a client's data, the more its update
pulls it back. Whose update is sent with its sign turned around pushes on instead. Which classes a
client holds cancels out, for both updates are of the same examples: two hospitals with patients of
one class each, at odds in every angle, both push back.

    answer_k(t) = cos(delta_k(t') - delta_k(t), (w_t - w_t') - b_k delta_k(t'))

t' is when the client was last there. What its own row did to the model, b_k delta_k(t'), is taken
off: else the chance in that row would be on both sides. b is the least squares fit of the model's
move by the rows that made it, so it is the weights where the rule is a mean, and whatever comes
nearest where it is not.

Related: FLDetector (Zhang, Cao, Jia and Gong, KDD 2022) forecasts updates by an estimate of H, and
asks how large the difference is. Here only its sign is asked for, which needs no estimate, and
which a client that flips from the first round on cannot get right by being consistent. The
statistic is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor


def own_parts(rows: Tensor, move: Tensor) -> Tensor:
    """b_k delta_k of every row `[n, k]`, so that their sum is as near as can be to `move` `[k]`.

    Rows that are the same share alike. With fewer numbers than rows nothing is told apart, and the
    move is all theirs.

    >>> rows = torch.eye(3, 5, dtype=torch.float64)
    >>> own_parts(rows, torch.tensor([1.0, 2.0, 0.0, 0.0, 7.0], dtype=torch.float64)).sum(dim=1)
    tensor([1., 2., 0.], dtype=torch.float64)
    """
    products = rows @ rows.T
    weights: Tensor = torch.linalg.lstsq(products, (rows @ move)[:, None], driver="gelsd").solution
    return weights * rows


def answers(before: Tensor, now: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines `[n]` of what changed in the clients' rows with what others did to the model.

    Args:
        before: a client's last row, one a row `[n, k]`; nothing but zeros: there was none.
        now: its row of this round, `[n, k]`.
        moved: the model's move in between without the client's own part, `[n, k]`.

    Returns:
        The cosines, and of whom there is one, `[n]` bool.
    """
    change = before - now
    lengths = change.norm(dim=1) * moved.norm(dim=1)
    said = (before.norm(dim=1) > 0) & (now.norm(dim=1) > 0) & (lengths > 0)
    return (change * moved).sum(dim=1) / torch.where(said, lengths, 1.0), said
