"""What an attack or a detector of one's own may not do to a round is refused by its name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.channel.plain import Plain
from fedexp.core.checks import InputError
from fedexp.core.types import Updates, Verdict
from fedexp.federation.form import (
    no_complaints,
    no_mixture,
    no_model,
    no_opinion,
    no_own_step,
    no_step,
)
from fedexp.federation.own_rows import OwnRowsOnly
from fedexp.federation.rounds import run_rounds
from fedexp.federation.sending import rewritten, transmitted
from tests.support.toy_rounds import experiment, start_of, value_of

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
    "no weight": (
        lambda u: replace(u, num_examples=u.num_examples * torch.nan),
        "must return num_examples that are finite, 0 or above",
    ),
    "no matrix": (lambda u: replace(u, matrix=None), "must return rows [3, 2] torch.float32"),
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
    for said in (None, ("",), ("", None), "ab"):
        assert no_complaints(said, 2).startswith("must return a word for each of 2 rows")


def test_what_is_no_opinion():
    n = torch.ones(3, dtype=torch.float64)
    good = Verdict(n, 1.0, n)
    assert not no_opinion((good, {}), 3)
    for told, words in (
        (good, "must return (Verdict, state), and returned a Verdict"),
        ((n, {}), "must return (Verdict, state)"),
        ((replace(good, scores=n[:1]), {}), "must return scores [3], one a row, and returned [1]"),
        (
            (replace(good, trust=[1.0] * 3), {}),
            "must return trust [3], one a row, and returned a",
        ),
        ((replace(good, trust=2 * n), {}), "must return trust in [0, 1]"),
        ((replace(good, trust=n * torch.nan), {}), "must return trust in [0, 1]"),
        ((replace(good, threshold=None), {}), "must return a number as the threshold"),
        ((replace(good, threshold=torch.tensor(1j)), {}), "must return a number as the threshold"),
        ((good, {"m": torch.eye(2).to_sparse()}), "a dict of plain tensors, and 'm' is [2, 2]"),
        ((good, None), "must return its state as a dict of tensors, and returned a NoneType"),
    ):
        assert words in no_opinion(told, 3)


def test_what_is_no_delivery():
    class Channel:
        sums = False

        def __init__(self, transmit):
            self.transmit = lambda updates, rng: transmit(updates)

    def zeroed(updates):
        return Plain().transmit(updates.with_matrix(updates.matrix.zero_()), None)

    def with_(**other):
        def transmit(updates):
            delivery = Plain().transmit(updates, None)
            own = {k: other[k] for k in other if k in ("matrix", "client_ids", "num_examples")}
            rest = {k: other[k] for k in other if k not in own}
            return replace(delivery, updates=replace(updates, **own), **rest)

        return transmit

    r = rows()
    for transmit, words in (
        (lambda updates: None, "must return a Delivery, not NoneType"),
        (zeroed, "changes the rows that it is given"),
        (with_(matrix=r.matrix.double()), "must return rows .3, 2. torch.float32, and returned .3"),
        (with_(matrix=r.matrix[:1]), "must return rows"),
        (with_(client_ids=(4, 4, 6)), "must deliver rows of clients that sent one, each once"),
        (with_(num_examples=-r.num_examples), "must return num_examples that are finite"),
        (with_(members=None), "does not name the clients"),
        (with_(members=((5,), (4,), (6,))), "must name a client's row as of that client alone"),
        (
            with_(client_ids=(-1, 5, 6), members=((4, 4), (5,), (6,))),
            "must name .* each of a sum's clients once",
        ),
        (with_(bytes_up=None), "must say bytes_up as a whole number, 0 or above, and says None"),
        (with_(bytes_up=-5), "must say bytes_up as a whole number, 0 or above, and says -5"),
        (with_(clipped=float("nan")), "must say clipped as a whole number"),
        (with_(lost=None), "must say lost as a tuple"),
        (with_(lost=(1,)), "must say lost as sentences"),
        (with_(dropped=(1,)), "must say dropped as pairs of a client and its turn"),
        (with_(dropped=((9, "upload"),)), "says that client 9 left, who was not in the round"),
        (with_(seconds=None), "must say seconds as a dict"),
    ):
        with pytest.raises(InputError, match=rf"^channel=\S*Channel: {words}"):
            transmitted(Channel(transmit), rows(), [], None)


def test_an_attack_on_its_own_rows_returns_rows():
    for made in (lambda u: None, lambda u: replace(u, matrix=None), lambda u: other(u, 0).matrix):
        with pytest.raises(InputError, match=r"^attack=\S*Attack: must return "):
            sent(made, OwnRowsOnly)


def test_what_is_no_model():
    params = torch.zeros(3)
    assert not no_model((params + 1, {}), params, params, in_place=False)
    far = torch.full((3,), 3e38)
    assert not no_model((2 * far, {}), far, far, in_place=False)  # infinite, as sums of such are
    for moved, words in (
        (None, "must return (params, state), and returned a NoneType"),
        (
            (params[:1], {}),
            "must return plain parameters [3] torch.float32, and returned [1] torch",
        ),
        ((params.double(), {}), "and returned [3] torch.float64"),
        (((params + 1).requires_grad_(), {}), "with a gradient"),
        ((params / 0, {}), "must return parameters without NaN and infinity"),
        ((params + 1, None), "must return its state as a dict of tensors"),
    ):
        assert words in no_model(moved, params, params, in_place=False)
    assert "changes the parameters" in no_model((params, {}), params, params, in_place=True)


def test_what_is_no_step():
    rows, good = torch.ones(4, 3), torch.ones(3)
    assert not no_step((good, {}), (3,), rows)
    assert not no_step((good * torch.nan, {}), (3,), rows * torch.nan)  # who sent that is to blame
    for made, words in (
        (good, "must return (step, state), and returned a Tensor"),
        ((good.double(), {}), "a step [3] torch.float32, and returned [3] torch.float64"),
        ((good[:1], {}), "and returned [1] torch.float32"),
        ((good.numpy(), {}), "and returned a ndarray"),
        ((good * torch.nan, {}), "must return a step without NaN and infinity where what it is gi"),
        ((good, {"seen": 3}), "must return its state as a dict of tensors, and 'seen' is a int"),
        ((good, {3: good}), "and 3 is a name that is no text"),
    ):
        assert words in no_step(made, (3,), rows)
        if made is not good:
            assert words in no_own_step(made, torch.ones(5), 3)


def test_what_is_no_mixture():
    given = replace(rows(), matrix=torch.ones(3, 2))
    assert not no_mixture(given, given)
    for made, words in (
        (None, "must return updates of 3 rows: returned a NoneType"),
        (given.with_matrix(given.matrix[:1]), "returned 1 rows of 3 clients"),
        (given.with_matrix(given.matrix[:, :1]), "must return rows [3, 2] torch.float32"),
        (given.with_matrix(given.matrix / 0), "must return rows without NaN and infinity"),
        (given.select(torch.zeros(3, dtype=torch.bool)), "returned 0 rows of 0 clients"),
        (replace(given, num_examples=-given.num_examples), "must return num_examples that are"),
    ):
        assert words in no_mixture(made, given)


class Late:
    """A part that answers well at first, and otherwise from then on."""

    def __init__(self, well, otherwise, calls):
        self.answers, self.otherwise = iter([well] * calls), otherwise
        self.init = lambda d: {}

    def __call__(self, *given):
        return next(self.answers, self.otherwise)(*given)


LATE = {
    "sampler": (lambda n, rng: np.arange(n), lambda n, rng: np.array([0.5])),
    "aggregator": (lambda u, s, rng: (u.matrix[0] * 1, s), lambda u, s, rng: (None, s)),
    "server_optimizer": (lambda p, step, s: (p + step, s), lambda p, step, s: (p / 0 - p / 0, s)),
    "worker_momentum": (lambda u, kept, d: (u, [{}]), lambda u, kept, d: (u, [{"m": 3}])),
}


@pytest.mark.parametrize("group", LATE)
def test_a_part_that_misbehaves_late_is_named_and_the_rounds_before_it_stand(group):
    calls = 4 if group == "worker_momentum" else 2  # it is asked for each of two clients
    exp = experiment(**{group: Late(*LATE[group], calls)}, rounds=5)
    rounds = run_rounds(exp, start_of(exp))
    assert [next(rounds)[0].round for _ in range(2)] == [1, 2]
    with pytest.raises(InputError, match=rf"^{group}=\S*Late: must "):
        next(rounds)


def centred(rows):
    rows -= rows.mean(axis=0)


def by_numpy(updates):
    centred(updates.matrix.numpy())


class Writes:
    """A detector, validation, mixer or rule that writes to what it is shown."""

    def __init__(self, write, answer=None):
        self.write, self.answer, self.init = write, answer, lambda d: {}

    def __call__(self, updates, *rest):
        self.write(updates)
        return self.answer(updates, *rest)


ANSWERS = {
    "detector": lambda u, state, rng: (Verdict.no_opinion(len(u)), state),
    "update_validation": lambda u, d: [""] * len(u),
    "aggregator": lambda u, state, rng: (u.matrix.mean(0), state),
}


@pytest.mark.parametrize("group", ANSWERS)
@pytest.mark.parametrize("write", [by_numpy, lambda u: u.num_examples.fill_(9)])
def test_who_looks_at_the_rows_writes_neither_to_them_nor_to_their_weights(group, write):
    exp = experiment(**{group: Writes(write, ANSWERS[group])})
    with pytest.raises(InputError, match=rf"^{group}=\S*Writes: changes the rows that it is given"):
        list(run_rounds(exp, start_of(exp)))


def test_an_optimiser_writes_neither_to_the_model_nor_to_the_step():
    for write in (lambda p, step: p.numpy().__iadd__(step.numpy()), lambda p, step: step.mul_(2)):
        optimizer = Writes(lambda p: None)
        optimizer.answer = lambda p, step, s, write=write: (write(p, step), (p + step, s))[1]
        exp = experiment(server_optimizer=optimizer)
        with pytest.raises(
            InputError, match=r"^server_optimizer=\S*Writes: changes the parameters"
        ):
            list(run_rounds(exp, start_of(exp, 1.0)))


@pytest.mark.parametrize("group", ["server_optimizer", "detector", "aggregator"])
def test_what_is_no_first_state(group):
    part = Writes(lambda updates: None)
    part.init = lambda d: None
    with pytest.raises(InputError, match=rf"^{group}=\S*Writes: must return its state as a dict"):
        start_of(experiment(**{group: part}))


class Remembers:
    """A detector that keeps a view of a row, which lies in a buffer that is used again."""

    def init(self, d):
        return {}

    def __call__(self, updates, state, rng):
        return Verdict.no_opinion(len(updates)), {"last": updates.matrix[0]}


def test_what_a_part_keeps_of_the_rows_is_its_own():
    exp = experiment(detector=Remembers())
    buffer = torch.zeros(2, 1)

    class Reuses(type(exp.backend)):
        def train(self, trainer, tasks):
            updates = super().train(trainer, tasks)
            return updates.with_matrix(buffer.copy_(updates.matrix))

    state, _ = next(run_rounds(replace(exp, backend=Reuses()), start_of(exp)))
    before = state.detector["last"].tolist()
    buffer.fill_(9)
    assert state.detector["last"].tolist() == before


def test_who_leaves_a_channel_without_a_protocol_is_recorded():
    class Channel:
        sums = False

        def transmit(self, updates, rng):
            return replace(Plain().transmit(updates, rng), dropped=((1, "upload"),))

    exp = experiment(channel=Channel())
    _, record = next(run_rounds(exp, start_of(exp)))
    assert value_of(record, "round", "all", "dropped_out") == 1


@pytest.mark.parametrize("promise", ["sums", "hides_rows"])
def test_a_channel_that_says_it_hides_rows_delivers_none(promise):
    class Channel:
        sums = hides_rows = False

        def transmit(self, updates, rng):
            return Plain().transmit(updates, rng)

    assert len(transmitted(Channel(), rows(), [], None)[0].updates) == 3
    setattr(Channel, promise, True)
    with pytest.raises(InputError, match=r"^channel=\S*Channel: says that it hides or sums"):
        transmitted(Channel(), rows(), [], None)
