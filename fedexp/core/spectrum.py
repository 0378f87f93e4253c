"""The largest eigenvalue of a symmetric matrix and its eigenvector, without all the others.

Of a few hundred rows LAPACK finds all of them in no time; of a thousand it takes a third of a
second, and filters that drop rows one by one ask hundreds of times. There ARPACK's Lanczos
iterations (Lehoucq, Sorensen and Yang, "ARPACK Users' Guide", SIAM 1998) go on to the precision of
float64, from a start that is the matrix's own and so the same every time.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 256  # rows


def top_eigenpair(matrix: Tensor) -> tuple[float, Tensor]:
    """Value and unit vector `[n]` of a symmetric `[n, n]` float64; the vector's sign is open.

    >>> value, vector = top_eigenpair(torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    >>> value, vector.abs().tolist()
    (3.0, [1.0, 0.0])
    """
    if len(matrix) <= SMALL or not bool(matrix.any()):
        values, vectors = torch.linalg.eigh(matrix)
        return float(values[-1]), vectors[:, -1]
    from scipy.sparse.linalg import eigsh

    # A column lies in the matrix's range; of centred rows a vector of ones does not.
    start = matrix[:, int(matrix.diagonal().argmax())].cpu().numpy()
    values, vectors = eigsh(matrix.cpu().numpy(), k=1, which="LA", v0=start)
    return float(values[0]), torch.from_numpy(vectors[:, 0]).to(matrix.device)
