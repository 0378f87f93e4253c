"""What an attack or a detector of one's own may not do to a round is refused by its name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.channel.plain import Plain
from fedexp.core.checks import InputError
from fedexp.core.types import Updates, Verdict
from fedexp.federation.form import no_complaints, no_model, no_opinion
from fedexp.federation.own_rows import OwnRowsOnly
from fedexp.federation.sending import rewritten, transmitted

MALICIOUS = torch.tensor([True, False, False])


class Attack:
    def __init__(self, rewrite):
        self.rewrite = lambda updates, malicious, rule, rng: rewrite(updates)


def rows():
    matrix = torch.arange(6.0).reshape(3, 2)
    matrix[1] = torch.nan  # a client whose training diverged
    return Updates(matrix, (4, 5, 6), torch.ones(3, dtype=torch.float64))


def sent(rewrite, wrap=lambda attack: attack):
    return rewritten(wrap(Attack(rewrite)), rows(), MALICIOUS, None, np.random.default_rng(0), {})[
        0
    ]


def other(updates, row):
    matrix = updates.matrix.clone()
    matrix[row] = 9
    return updates.with_matrix(matrix)


WRONG = {
    "in place": (lambda u: u.with_matrix(u.matrix.mul_(2)), "changes the rows that it is given"),
    "another's row": (lambda u: other(u, 2), "and changed client 6's"),
    "fewer": (lambda u: u.with_matrix(u.matrix[:1]), "must return rows [3, 2] torch.float32"),
    "double": (lambda u: u.with_matrix(u.matrix.double()), "and returned [3, 2] torch.float64"),
    "nothing": (lambda u: None, "must return updates, and returned a NoneType"),
    "weights": (lambda u: replace(u, num_examples=u.num_examples * 3), "or their weight"),
    "names": (lambda u: replace(u, client_ids=(5, 4, 6)), "whose they are"),
}


@pytest.mark.parametrize(("rewrite", "words"), WRONG.values(), ids=WRONG)
def test_an_attack_has_the_malicious_rows_and_no_others(rewrite, words):
    with pytest.raises(InputError, match=r"^attack=\S*Attack: ") as refused:
        sent(rewrite)
    assert words in str(refused.value)


def test_what_it_may_do_is_not_refused():
    assert sent(lambda u: u).matrix[0].tolist() == [0, 1]
    assert sent(lambda u: other(u, 0)).matrix[0].tolist() == [9, 9]


def test_an_attack_on_its_own_rows_is_not_lost():
    with pytest.raises(InputError, match="changes the rows that it is given"):
        sent(lambda u: (u.matrix.mul_(2), u)[1], OwnRowsOnly)


def test_what_is_no_complaint():
    assert not no_complaints(("", "too long"), 2)
    for said in (None, ("",), ("", None)):
        assert no_complaints(said, 2).startswith("must return a word for each of 2 rows")


def test_what_is_no_opinion():
    n = torch.ones(3, dtype=torch.float64)
    good = Verdict(n, 1.0, n)
    assert not no_opinion((good, {}), 3)
    for told, words in (
        (good, "must return (Verdict, state), and returned a Verdict"),
        ((n, {}), "must return (Verdict, state)"),
        ((replace(good, scores=n[:1]), {}), "must return scores [3], one a row, and returned [1]"),
        ((replace(good, trust=[1.0] * 3), {}), "must return trust [3], one a row, and returned li"),
        ((replace(good, trust=2 * n), {}), "must return trust in [0, 1]"),
        ((replace(good, trust=n * torch.nan), {}), "must return trust in [0, 1]"),
        ((good, None), "must return its state as a dict of tensors, and returned a NoneType"),
    ):
        assert words in no_opinion(told, 3)


def test_what_is_no_delivery():
    class Channel:
        def __init__(self, transmit):
            self.transmit = lambda updates, rng: transmit(updates)

    def zeroed(updates):
        return Plain().transmit(updates.with_matrix(updates.matrix.zero_()), None)

    for transmit, words in (
        (lambda updates: None, "must return a Delivery, not NoneType"),
        (zeroed, "changes the rows that it is given"),
    ):
        with pytest.raises(InputError, match=rf"^channel=\S*Channel: {words}"):
            transmitted(Channel(transmit), rows(), [], None)


def test_what_is_no_model():
    params = torch.zeros(3)
    assert not no_model((params + 1, {}), params, in_place=False)
    for moved, words in (
        (None, "must return (params, state), and returned a NoneType"),
        (
            (params[:1], {}),
            "must return plain parameters [3] torch.float32, and returned [1] torch",
        ),
        ((params.double(), {}), "and returned [3] torch.float64"),
        (((params + 1).requires_grad_(), {}), "with a gradient"),
    ):
        assert words in no_model(moved, params, in_place=False)
    assert "changes the parameters" in no_model((params, {}), params, in_place=True)
