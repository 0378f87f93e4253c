"""Distances between the clients' rows, from two passes over the matrix.

The Gram matrix of the rows less any centre m, G_ij = <x_i - m, x_j - m>, holds everything that a
rule on distances needs: ||x_i - x_j||^2 = G_ii + G_jj - 2 G_ij, and for a point
z = sum_k a_k x_k with weights that sum to 1, ||x_i - z||^2 = G_ii - 2 (G a)_i + a' G a. So Krum,
the geometric median, clipping and their kin cost two reads of `[n, d]` and then work on `[n, n]`.

Centring keeps the digits: without it, rows that agree to three digits would leave a difference of
large numbers. The attackers must have no say in the centre. Chunks of columns are multiplied in
float32 and added up in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.columns import over_columns
from fedexp.core.norms import mirrored, numbers_to_multiply, row_norms, upper_products


def centred_gram(matrix: Tensor) -> Tensor:
    """Gram matrix of the rows minus a centre: `[n, d]` to `[n, n]` float64.

    The centre is the mean of the rows whose norm is at most the median norm: a mean of all would
    follow a far-out attacker, and the distances between honest rows would drown in its rounding.
    No temporary is larger than a chunk of columns, but for a copy if a row holds NaN or its squares
    overflow: its products are NaN, and the others' distances what they are without it, up to
    rounding.

    >>> centred_gram(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    tensor([[0., 0.],
            [0., 4.]], dtype=torch.float64)
    """
    norms = row_norms(matrix)
    lost = ~norms.isfinite()
    if bool(lost.any()):
        matrix = matrix.masked_fill(lost[:, None], 0)
    near = ((norms <= norms.sort().values[(len(matrix) - 1) // 2]) & ~lost).to(matrix)
    share = near / near.sum().clamp_min(1)

    def products(chunks: Iterator[slice]) -> Tensor:
        # One room for all differences of a band: to be given a new one takes as long as to fill it.
        total, room = matrix.new_zeros(len(matrix), len(matrix), dtype=torch.float64), None
        for columns in chunks:
            chunk = matrix[:, columns]
            room = torch.empty_like(chunk) if room is None else room.resize_(chunk.shape)
            total += upper_products(torch.sub(chunk, share @ chunk, out=room))
        return total

    bands = over_columns(products, matrix, numbers_to_multiply(len(matrix)))
    gram = mirrored(reduce(torch.add, bands))
    return gram.masked_fill_(lost[:, None] | lost[None, :], torch.nan)


def squared_distances(matrix: Tensor) -> Tensor:
    """Squared Euclidean distances between all rows: `[n, d]` to `[n, n]` float64, diagonal 0.

    A row that holds NaN, or whose squares overflow, is infinitely far from every other.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]], dtype=torch.float64)
    """
    gram = centred_gram(matrix)
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * gram).clamp_min_(0)
    return distances.nan_to_num_(nan=torch.inf, posinf=torch.inf).fill_diagonal_(0)


def refuse_uncountable(gram: Tensor) -> None:
    """Raise InputError for inner products `[n, n]` of rows that cannot be compared."""
    if not bool(gram.isfinite().all()):
        raise InputError(
            "cannot compare rows that hold NaN, or are too long for their squares to be numbers; "
            "update_validation=standard drops them"
        )


def distances_to_point(gram: Tensor, weights: Tensor) -> Tensor:
    """Distances of the rows to sum_k weights_k x_k, weights summing to 1: `[n]` float64."""
    gram_weights = gram @ weights
    squared = gram.diagonal() - 2 * gram_weights + weights @ gram_weights
    return squared.clamp_min_(0).sqrt_()
