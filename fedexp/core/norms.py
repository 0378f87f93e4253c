"""Norms and angles of the clients' rows as they are, without subtracting their mean.

`fedexp.core.geometry` has the distances between rows; here are the norms ||x_k||, the
cosines cos(x_i, x_j) = <x_i, x_j> / (||x_i|| ||x_j||), and the factors min(1, bound / ||x_k||) that
clip rows to a bound. Chunks of columns are multiplied in float32 and added up in float64, on all
cores; of the products of many rows only the upper half is computed, block by block.

A row of zeros has cosine 0 with every row. A row whose squares overflow float32 (a norm beyond
about 1e19) has an infinite norm and cosine 0 with every row: clipped, it is a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedexp.core.columns import added_over_columns, over_columns

BLOCK_ROWS = 128  # to spare half of the products, in pieces that are still fast to multiply
NUMBERS_TO_ADD_UP = 2**22  # at once: long pieces of rows are read faster than short ones
WHOLE_VECTORS = 64  # columns: what is left over of a piece is rounded in another order


def row_norms(matrix: Tensor) -> Tensor:
    """Euclidean norms of the rows: `[n, d]` to `[n]` float64.

    >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([5., 0.], dtype=torch.float64)
    """

    def squares(columns: slice) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(matrix[:, columns], dim=1)
        return norms.double().square()

    return added_over_columns(squares, matrix).sqrt()


def gram(matrix: Tensor) -> Tensor:
    """All inner products of the rows: `[n, d]` to `[n, n]` float64, symmetric to the last bit.

    >>> gram(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([[25.,  3.],
            [ 3.,  1.]], dtype=torch.float64)
    """

    def products(columns: slice) -> Tensor:
        return upper_products(matrix[:, columns])

    return mirrored(added_over_columns(products, matrix, numbers_to_multiply(len(matrix))))


def numbers_to_multiply(n: int) -> int:
    """How many numbers of n rows to multiply at once: to add up `[n, n]` must be little beside."""
    return max(2**19, 4096 * n)


def upper_products(rows: Tensor) -> Tensor:
    """Inner products of the rows: `[n, c]` to `[n, n]` float64, of which the upper half counts."""
    n = len(rows)
    products = torch.zeros(n, n, dtype=torch.float64, device=rows.device)
    for at in range(0, n, BLOCK_ROWS):
        block = slice(at, at + BLOCK_ROWS)
        products[block, at:] = rows[block] @ rows[at:].T
    return products


def mirrored(upper: Tensor) -> Tensor:
    """The upper half of `[n, n]` on both sides.

    What multiplies matrices promises no symmetric rounding, and clusterings insist on it.
    """
    return upper.triu() + upper.triu(1).T


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


def scaled(matrix: Tensor, factors: Tensor) -> Tensor:
    """A copy of the rows, each times its factor: `[n, d]` and `[n]` to `[n, d]`.

    >>> scaled(torch.ones(2, 2), torch.tensor([1.0, 3.0]))
    tensor([[1., 1.],
            [3., 3.]])
    """
    result = torch.empty_like(matrix)
    column = factors.to(matrix)[:, None]

    def work(chunks: Iterator[slice]) -> None:
        for columns in chunks:
            torch.mul(matrix[:, columns], column, out=result[:, columns])

    over_columns(work, matrix)
    return result


def mixed(matrix: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the rows: `[n, d]` and `[m, n]` to `[m, d]`.

    >>> mixed(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5, 0.5]]))
    tensor([[2.]])
    """
    result = matrix.new_empty(len(weights), matrix.shape[1])
    weights = weights.to(matrix)

    def work(chunks: Iterator[slice]) -> None:
        for columns in chunks:
            torch.matmul(weights, matrix[:, columns], out=result[:, columns])

    over_columns(work, matrix, numbers_to_multiply(len(matrix)))
    return result


def weighted_sum(weights: Tensor, matrix: Tensor) -> Tensor:
    """sum_k weights_k x_k over the rows: `[n]` and `[n, d]` to `[d]`.

    What it takes is reading the rows, which one core does at half of the memory's speed. Pieces end
    where the processor's vectors do, so that a sum has the bits of one product.

    >>> weighted_sum(torch.tensor([0.5, 0.25]), torch.tensor([[2.0, 0.0], [4.0, 8.0]]))
    tensor([2., 2.])
    """
    weights = weights.to(matrix)
    if matrix.numel() <= NUMBERS_TO_ADD_UP:
        return weights @ matrix
    total = matrix.new_empty(matrix.shape[1])

    def work(chunks: Iterator[slice]) -> None:
        for columns in chunks:
            torch.mv(matrix[:, columns].T, weights, out=total[columns])

    n = len(matrix)
    width = max(1, NUMBERS_TO_ADD_UP // n // WHOLE_VECTORS) * WHOLE_VECTORS
    over_columns(work, matrix, width * n)
    return total


def median(values: Tensor) -> Tensor:
    """The median of `[n]`; for even n the mean of the two middle values (torch has the lower).

    >>> median(torch.tensor([1.0, 9.0, 2.0, 4.0]))
    tensor(3.)
    """
    return values.quantile(0.5)
