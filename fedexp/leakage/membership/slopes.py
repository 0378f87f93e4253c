"""How much an update lowers the loss of each example: forward-mode directional derivatives.

    s(u, x) = - d/dt l(x; w + t u / |u|)  at t = 0,  = - grad l(x; w) . u / |u|

w is the model that the round began with, u a row that the server received. An update is a step down
the loss of the examples that it was made of, so for these s tends to be larger. The derivative is
taken along all rows of a chunk at once (`torch.func.jvp` under `vmap`, about twice as quick as one
after the other); no gradient of an example is formed.

Source: Baydin, Pearlmutter, Radul and Siskind, "Automatic Differentiation in Machine Learning: a
Survey", JMLR 2018, section 3.1 (forward mode).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from fedexp.core.examples import Split
from fedexp.core.flat import FlatModel
from fedexp.core.normalise import Normalisation
from fedexp.core.protocols import Task
from fedexp.core.workload import evaluation_batch

# What one pass goes through, to bound the memory; few examples would wait for the rows' weights.
ROWS_AT_ONCE = 12
NUMBERS_AT_ONCE = 2**18  # of the examples' own


def slopes(
    model: nn.Module,
    task: Task,
    normalisation: Normalisation,
    params: Tensor,
    rows: Tensor,
    examples: Split,
) -> np.ndarray:
    """The s `[k, n]` float32 of every row and example; 0 along a row of zeros.

    Args:
        model: the architecture; asked as it answers (`eval`).
        task: what labels mean.
        normalisation: from the examples' own unit to what the model takes.
        params: `[d]` that the round began with.
        rows: `[k, D]` finite, where the first d numbers are the model's.
        examples: `[n]` labelled, in their own unit.
    """
    flat = FlatModel(model, params.device, normalisation)
    flat.load(params)
    module = flat.module.eval()
    point = cut(module, params)
    numbers = examples.x[:1].numel()
    size = max(1, min(evaluation_batch(params.device, numbers), NUMBERS_AT_ONCE // numbers))
    found = np.empty((len(rows), len(examples)), dtype=np.float32)
    for first in range(0, len(examples), size):
        batch = examples.between(first, first + size).to(params.device)
        x, y = flat.arrange(batch), batch.y

        def losses(at: Mapping[str, Tensor], x: Tensor = x, y: Tensor = y) -> Tensor:
            return task.losses(functional_call(module, dict(at), (x,)), y)

        def along(direction: Mapping[str, Tensor]) -> Tensor:
            slope: Tensor = jvp(losses, (point,), (direction,))[1]
            return slope

        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = _of_length_one(rows[start : start + ROWS_AT_ONCE, : len(params)])
            with _quietly():
                down = -vmap(along)(cut(module, chunk))
            found[start : start + len(chunk), first : first + len(batch)] = down.cpu().numpy()
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's warning about itself: its rules for `jvp` are made by `torch.jit.script`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
        warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
        yield


def cut(module: nn.Module, vectors: Tensor) -> dict[str, Tensor]:
    """The tensors of `vectors` `[..., d]` by name, each `[..., *shape]`, in the vector's order."""
    named: list[tuple[str, Tensor]] = [
        (name, p) for name, p in module.named_parameters() if p.requires_grad
    ]
    named += [(name, b) for name, b in module.named_buffers() if b.is_floating_point()]
    pieces = vectors.split([tensor.numel() for _, tensor in named], dim=-1)
    return {
        name: piece.reshape(*vectors.shape[:-1], *tensor.shape)
        for (name, tensor), piece in zip(named, pieces, strict=True)
    }


def _of_length_one(rows: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    return rows / torch.where(lengths > 0, lengths, 1.0).to(rows)
