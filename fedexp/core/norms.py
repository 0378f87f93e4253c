"""Norms and angles of the clients' rows as they are, without subtracting their mean.

`fedexp.core.geometry` has the distances between rows; here are the norms ||x_k||, the
cosines cos(x_i, x_j) = <x_i, x_j> / (||x_i|| ||x_j||), and the factors min(1, bound / ||x_k||) that
clip rows to a bound. Chunks of columns are multiplied in float32 and added up in float64.

A row of zeros has cosine 0 with every row. A row whose squares overflow float32 (a norm beyond
about 1e19) has an infinite norm and cosine 0 with every row: clipped, it is a row of zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedexp.core.geometry import CHUNK_COLUMNS


def row_norms(matrix: Tensor) -> Tensor:
    """Euclidean norms of the rows: `[n, d]` to `[n]` float64.

    >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([5., 0.], dtype=torch.float64)
    """
    squares = torch.zeros(len(matrix), dtype=torch.float64, device=matrix.device)
    for chunk in torch.split(matrix, CHUNK_COLUMNS, dim=1):
        squares += torch.linalg.vector_norm(chunk, dim=1).double().square()
    return squares.sqrt()


def gram(matrix: Tensor) -> Tensor:
    """All inner products of the rows: `[n, d]` to `[n, n]` float64.

    >>> gram(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[25.,  3.],
            [ 3.,  1.]], dtype=torch.float64)
    """
    n = len(matrix)
    products = torch.zeros(n, n, dtype=torch.float64, device=matrix.device)
    for chunk in torch.split(matrix, CHUNK_COLUMNS, dim=1):
        products += chunk @ chunk.T
    # What multiplies matrices promises no symmetric rounding, and clusterings insist on it.
    return (products + products.T) / 2


def cosines(products: Tensor) -> Tensor:
    """Cosines between all rows from their inner products: `[n, n]` to `[n, n]` float64.

    >>> cosines(gram(torch.tensor([[3.0, 4.0], [1.0, 0.0]])))
    tensor([[1.0000, 0.6000],
            [0.6000, 1.0000]], dtype=torch.float64)
    """
    norms = products.diagonal().sqrt()
    ratios = products / norms.outer(norms)
    return ratios.nan_to_num_(nan=0, posinf=0, neginf=0).clamp_(-1, 1)


def clip_factors(norms: Tensor, bound: Tensor | float) -> Tensor:
    """min(1, bound / norm) for every norm: `[n]` to `[n]`; 1 for a norm of 0.

    >>> clip_factors(torch.tensor([0.0, 1.0, 4.0]), 2.0)
    tensor([1.0000, 1.0000, 0.5000])
    """
    return torch.where(norms > bound, bound / norms, 1)


def median(values: Tensor) -> Tensor:
    """The median of `[n]`; for even n the mean of the two middle values (torch has the lower).

    >>> median(torch.tensor([1.0, 9.0, 2.0, 4.0]))
    tensor(3.)
    """
    return values.quantile(0.5)
