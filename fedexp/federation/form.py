"""What is wrong in form with what a part of the server returned, which may be somebody's own.

Said where it was made: further on it would be a traceback, or a wrong figure without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.text import called, is_name
from fedexp.core.types import Delivery, Updates, Verdict

IN_PLACE = "changes the rows that it is given: copy them first (updates.matrix.clone())"

ACTED = (
    "says that it does nothing (does_nothing), and takes trust from an update; leave does_nothing "
    "out, or do not inherit it"
)

OF_INFERENCE = "made in torch.inference_mode(), where torch.no_grad() would do"


class WrongForm(InputError):
    """A part has not kept to the form of its answers, which is no refusal of the rows it got."""


def refuse_form(wrong: str, group: str, part: object) -> None:
    """Raise WrongForm where something is wrong with what a part returned."""
    if wrong:
        raise WrongForm(wrong, group, called(part))


def no_state(state: object, of: str = "its state") -> str:
    """What is wrong with what a part wants to find again in the next round; "": nothing."""
    if not isinstance(state, Mapping):
        return f"must return {of} as a dict of tensors, and returned a {type(state).__name__}"
    for name, value in state.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            return f"must return {of} as a dict of tensors, and {name!r} is a " + (
                type(value).__name__ if isinstance(name, str) else "name that is no text"
            )
        if value.layout != torch.strided or value.is_meta:
            return f"must return {of} as a dict of plain tensors, and {name!r} is {_kind(value)}"
        if value.is_inference():
            return (
                f"must return {of} as a dict of plain tensors, and {name!r} is one {OF_INFERENCE}"
            )
    return ""


def no_numbers(made: object, shape: Sequence[int], dtype: torch.dtype, of: str) -> str:
    """What is wrong with a tensor that is to be a plain one of this kind; "": nothing."""
    wanted = f"must return {of} {list(shape)} {dtype}"
    if not isinstance(made, Tensor):
        return f"{wanted}, and returned a {type(made).__name__}"
    if made.shape != tuple(shape) or made.dtype != dtype or made.layout != torch.strided:
        kind = "" if made.layout == torch.strided else f" {made.layout}"
        return f"{wanted}, and returned {list(made.shape)} {made.dtype}{kind}"
    if made.is_inference():
        return f"{wanted}, and returned one {OF_INFERENCE}"
    return f"{wanted}, and returned one with a gradient" if made.requires_grad else ""


def no_rows(made: object, given: Tensor) -> str:
    """What is wrong with what an attack made of the rows it was given; "": nothing."""
    if not isinstance(made, Updates):
        return f"must return updates, and returned a {type(made).__name__}"
    return no_numbers(made.matrix, given.shape, given.dtype, "rows")


def no_complaints(said: object, n: int) -> str:
    """What is wrong with what a validation has said about n rows; "": nothing."""
    wanted = f'must return a word for each of {n} rows, "" for none to say'
    if not isinstance(said, Sequence) or isinstance(said, str):
        return f"{wanted}, and returned a {type(said).__name__}"
    if len(said) != n:
        return f"{wanted}, and returned {len(said)}"
    other = [type(word).__name__ for word in said if type(word) is not str]
    return f"{wanted}, and returned a {other[0]} among them" if other else ""


def no_opinion(told: object, n: int) -> str:
    """What is wrong with what a detector has said about n rows; "": nothing."""
    if not (isinstance(told, tuple) and len(told) == 2 and isinstance(told[0], Verdict)):
        given = told[0] if isinstance(told, tuple) and told else told
        return f"must return (Verdict, state), and returned a {type(given).__name__}"
    verdict, state = told
    for name, values in (("scores", verdict.scores), ("trust", verdict.trust)):
        if not isinstance(values, Tensor) or values.shape != (n,) or values.is_complex():
            return f"must return {name} [{n}], one a row, and returned {_kind(values)}"
    if not _is_number(verdict.threshold):
        kind = type(verdict.threshold).__name__
        return f"must return a number as the threshold, and returned a {kind}"
    if not bool(((verdict.trust >= 0) & (verdict.trust <= 1)).all()):
        return "must return trust in [0, 1], and returned some that is not"
    return no_state(state)


def no_mixture(made: object, given: Updates) -> str:
    """What is wrong with what a mixer made of the rows it was given; "": nothing."""
    n, rows = len(given), given.matrix
    if not isinstance(made, Updates):
        return f"must return updates of {n} rows: returned a {type(made).__name__}"
    if not len(made) or not isinstance(made.matrix, Tensor) or len(made.matrix) != len(made):
        there = len(made.matrix) if isinstance(made.matrix, Tensor) else type(made.matrix).__name__
        return f"must return updates of {n} rows: returned {there} rows of {len(made)} clients"
    wrong = no_numbers(made.matrix, (len(made), *rows.shape[1:]), rows.dtype, "rows")
    wrong = wrong or no_weights(made.num_examples, len(made))
    return wrong or _not_finite("rows", made.matrix, rows)


def no_step(made: object, shape: Sequence[int], rows: Tensor) -> str:
    """What is wrong with what a rule made of `rows`, to be a step of this shape; "": nothing."""
    if not (isinstance(made, tuple) and len(made) == 2):
        return f"must return (step, state), and returned a {type(made).__name__}"
    step, state = made
    of = f"for rows {list(rows.shape)} a step"
    wrong = no_numbers(step, shape, rows.dtype, of) or no_state(state)
    return wrong or _not_finite("a step", step, rows)


def no_own_step(made: object, whole: Tensor, d: int) -> str:
    """What is wrong with what an algorithm has left of a step for the model; "": nothing."""
    if not (isinstance(made, tuple) and len(made) == 2):
        return f"must return (step, state), and returned a {type(made).__name__}"
    step, state = made
    wrong = no_numbers(step, (*whole.shape[:-1], d), whole.dtype, "a step") or no_state(state)
    return wrong or _not_finite("a step", step, whole)


def no_model(moved: object, params: Tensor, step: Tensor, in_place: bool) -> str:
    """What is wrong with what a server optimiser made of `params` and a step; "": nothing."""
    if in_place:
        return "changes the parameters that it is given: return new ones (params + step)"
    if not (isinstance(moved, tuple) and len(moved) == 2 and isinstance(moved[0], Tensor)):
        given = moved[0] if isinstance(moved, tuple) and moved else moved
        return f"must return (params, state), and returned a {type(given).__name__}"
    wrong = no_numbers(moved[0], params.shape, params.dtype, "plain parameters")
    return wrong or no_state(moved[1]) or _not_finite("parameters", moved[0], params, step)


def _not_finite(what: str, made: Tensor, *of: Tensor) -> str:
    """Whether NaN or infinity was made of numbers far from what overflows: the part's own doing."""
    if bool(torch.linalg.vector_norm(made).isfinite() or made.isfinite().all()):
        return ""  # mostly by the norm, which needs no memory
    if not all(bool(torch.linalg.vector_norm(one).square().isfinite()) for one in of):
        return ""
    return f"must return {what} without NaN and infinity where what it is given has none"


def _kind(made: object) -> str:
    if not isinstance(made, Tensor):
        return f"a {type(made).__name__}"
    kind = "" if made.layout == torch.strided else f" {made.layout}"
    return f"{list(made.shape)} {made.dtype}{kind}{' without data' * made.is_meta}"


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real)


def no_figures(measured: object, metrics: Sequence[str]) -> str:
    """What is wrong with what a task measured, of which all `metrics` are; "": nothing."""
    if not isinstance(measured, Mapping):
        return f"must measure a dict of numbers, and gave {_kind(measured)}"
    for name in metrics:
        if name not in measured:
            return f"says that it measures {name!r} (metrics), and does not"
    for name, value in measured.items():
        if not is_name(name):
            return f"must give what it measures a name on one line, and {name!r} is none"
        if not isinstance(value, Real):
            return f"must measure numbers (float), and {name!r} is {_kind(value)}"
    return ""


def no_answers(given: object, y: Tensor) -> str:
    """What is wrong with what a task gives as the answers to examples with labels `y`; ""."""
    if isinstance(given, Tensor) and given.shape == y.shape:
        return ""
    return f"must predict answers as labels are {list(y.shape)}, and gave {_kind(given)}"


def no_delivery(delivery: object, sent: Updates) -> str:
    """What is wrong with what a channel says it has brought of what was sent; "": nothing."""
    if not isinstance(delivery, Delivery):
        return f"must return a Delivery, not {type(delivery).__name__}"
    brought, known, members = delivery.updates, set(sent.client_ids), delivery.members
    if not isinstance(brought, Updates):
        return f"must deliver updates, and delivered a {type(brought).__name__}"
    told = isinstance(members, Sequence) and len(members) == len(brought)
    if not told or not all(who and known.issuperset(who) for who in members):
        return "does not name the clients in every row that it delivers (Delivery.members)"
    single = [client for client in brought.client_ids if client >= 0]
    if len(set(single)) < len(single) or not known.issuperset(single):
        return "must deliver rows of clients that sent one, each once (a negative number: a sum)"
    rows = zip(brought.client_ids, members, strict=True)
    if not all(
        tuple(who) == (client,) if client >= 0 else len(set(who)) == len(who)
        for client, who in rows
    ):
        return "must name a client's row as of that client alone, and each of a sum's clients once"
    shape = (len(brought), *sent.matrix.shape[1:])
    return (
        no_numbers(brought.matrix, shape, sent.matrix.dtype, "rows")
        or no_weights(brought.num_examples, len(brought))
        or _no_costs(delivery, known)
    )


def no_weights(weights: object, n: int) -> str:
    """What is wrong with the weights of n rows; "": nothing."""
    if not isinstance(weights, Tensor) or weights.shape != (n,):
        return f"must return num_examples [{n}], one a row, and returned {_kind(weights)}"
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        return "must return num_examples that are finite, 0 or above, and returned some that is not"
    return ""


def _no_costs(delivery: Delivery, known: Collection[int]) -> str:
    for name in ("bytes_up", "bytes_down", "clipped"):
        value = getattr(delivery, name)
        if not isinstance(value, Integral) or value < 0:
            return f"must say {name} as a whole number, 0 or above, and says {value!r}"
    for name in ("dropped", "lost"):
        if not isinstance(value := getattr(delivery, name), tuple):
            return f"must say {name} as a tuple, and says a {type(value).__name__}"
    for one in delivery.dropped:
        if not (isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], str)):
            return f"must say dropped as pairs of a client and its turn, and says {one!r}"
        if one[0] not in known:
            return f"says that client {one[0]!r} left, who was not in the round"
    if not all(isinstance(sentence, str) for sentence in delivery.lost):
        return f"must say lost as sentences, and says {delivery.lost!r}"
    if not isinstance(delivery.seconds, Mapping):
        return f"must say seconds as a dict, and says a {type(delivery.seconds).__name__}"
    return ""
