"""What is wrong in form with what a part of the server returned, which may be somebody's own.

Said where it was made: further on it would be a traceback, or a wrong figure without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fedexp.core.types import Verdict

IN_PLACE = "changes the rows that it is given: copy them first (updates.matrix.clone())"


def no_complaints(said: object, n: int) -> str:
    """What is wrong with what a validation has said about n rows; "": nothing."""
    if not isinstance(said, Sequence) or len(said) != n or not all(type(s) is str for s in said):
        given = f"{len(said)}" if isinstance(said, Sequence) else type(said).__name__
        return f'must return a word for each of {n} rows, "" for none to say, and returned {given}'
    return ""


def no_opinion(told: object, n: int) -> str:
    """What is wrong with what a detector has said about n rows; "": nothing."""
    if not (isinstance(told, tuple) and len(told) == 2 and isinstance(told[0], Verdict)):
        given = told[0] if isinstance(told, tuple) and told else told
        return f"must return (Verdict, state), and returned a {type(given).__name__}"
    verdict, state = told
    for name, values in (("scores", verdict.scores), ("trust", verdict.trust)):
        if not isinstance(values, Tensor) or values.shape != (n,):
            given = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            return f"must return {name} [{n}], one a row, and returned {given}"
    if not bool(((verdict.trust >= 0) & (verdict.trust <= 1)).all()):
        return "must return trust in [0, 1], and returned some that is not"
    if not (isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())):
        return f"must return its state as a dict of tensors, and returned a {type(state).__name__}"
    return ""


def no_model(moved: object, params: Tensor, in_place: bool) -> str:
    """What is wrong with what a server optimiser made of `params`; "": nothing."""
    if in_place:
        return "changes the parameters that it is given: return new ones (params + step)"
    if not (isinstance(moved, tuple) and len(moved) == 2 and isinstance(moved[0], Tensor)):
        return f"must return (params, state), and returned a {type(moved).__name__}"
    new = moved[0]
    if new.shape != params.shape or new.dtype != params.dtype or new.requires_grad:
        wanted = f"plain parameters {list(params.shape)} {params.dtype}"
        return f"must return {wanted}, and returned {list(new.shape)} {new.dtype}" + (
            " with a gradient" * new.requires_grad
        )
    return ""
