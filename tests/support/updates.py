"""What clients send, made up: for tests of whoever receives it."""

import torch

from fedexp.core.types import Updates


def updates(rows, num_examples=None, client_ids=None, reference=None) -> Updates:
    """Rows `[n, d]` of clients 0 to n - 1, who trained on 1 to n examples where nothing is said.

    Unequal, so that a rule that weighs them shows, and with all else that a round can hold.
    """
    matrix = torch.as_tensor(rows)
    n = len(matrix)
    return Updates(
        matrix=matrix,
        client_ids=tuple(range(n) if client_ids is None else client_ids),
        num_examples=torch.as_tensor(
            range(1, n + 1) if num_examples is None else num_examples, dtype=torch.float64
        ),
        processed=100,
        metrics=tuple({"loss": float(k)} for k in range(n)),
        reference=reference,
    )
