"""What every mechanism of conf/privacy must keep, whatever it promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.none import NoPrivacy
from fedexp.reporting.privacy import SIZES_OF_NOISE
from tests.support.composing import choices, part
from tests.support.mechanisms import protected
from tests.support.updates import updates

N, D = 8, 37
NOISY_ROWS = ("local_gaussian", "local_laplace")
NOISY_STEP = ("client_dp",)
IN_TRAINING = ("dp_sgd",)  # in the place of a trainer's steps, see tests/unit/test_private_steps.py
IN_DATA = ("input_gaussian", "input_laplace")  # in the examples, see test_input_noise.py
ELSEWHERE = (*IN_TRAINING, *IN_DATA)
CHOICES = [choice for choice in choices("privacy") if choice not in ELSEWHERE]


@pytest.fixture(params=CHOICES)
def choice(request):
    return request.param


@pytest.fixture
def privacy(choice):
    return protected(part("privacy", choice, f"cohort_size={N}"), N, D).privacy


def rows(n=N, d=D, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def rng(seed=0):
    return np.random.default_rng(seed)


def sent(privacy, given, seed=0):
    return privacy.on_client(given, privacy.init(given.matrix.shape[1]), rng(seed))


def received(privacy, given):
    return privacy.on_receipt(given, privacy.init(given.matrix.shape[1]))


def released(privacy, given, seed=0):
    state = privacy.init(given.matrix.shape[1])
    step = given.matrix.mean(dim=0) if len(given) else torch.zeros(given.matrix.shape[1])
    return privacy.on_step(step, given, state, rng(seed))


def test_the_configs_were_found():
    assert {"none", "client_dp", "local_gaussian", "local_laplace"} <= set(choices("privacy"))
    for choice in IN_TRAINING:
        protection = protected(part("privacy", choice), N, D)
        assert isinstance(protection.trainer, PrivateTraining)
        assert isinstance(protection.privacy, NoPrivacy)


def test_noise_in_the_step_is_released_in_every_round(privacy, choice):
    assert privacy.releases_every_round == (choice in NOISY_STEP)


@pytest.mark.parametrize("name", sorted({*choices("privacy")} - {"none"}))
def test_a_report_says_how_large_the_noise_is(name):
    account = protected(part("privacy", name), N, D).account
    assert account.description.noise
    assert set(account.description.noise) <= set(SIZES_OF_NOISE)


@pytest.mark.parametrize("n", [0, 1, N])
@pytest.mark.parametrize("d", [1, D])
def test_rows_and_step_keep_shape_and_type_and_are_finite(privacy, n, d):
    given = updates(rows(n, d))
    for after in (sent(privacy, given), received(privacy, given)):
        assert after.matrix.shape == (n, d)
        assert after.matrix.dtype == torch.float32
        assert after.matrix.isfinite().all()
        assert after.num_examples.shape == (n,)
        assert after.num_examples.dtype == torch.float64
    step, _ = released(privacy, given)
    assert step.shape == (d,)
    assert step.dtype == torch.float32
    assert step.isfinite().all()


def test_what_else_the_clients_sent_stays_with_them(privacy):
    given = updates(rows(), reference=torch.ones(D))
    for after in (sent(privacy, given), received(privacy, given)):
        assert after.client_ids == given.client_ids
        assert after.metrics == given.metrics
        assert after.processed == given.processed
        assert torch.equal(after.reference, given.reference)


@pytest.mark.parametrize("scale", [1e-3, 100.0])  # rows that no one clips, rows that all are
def test_the_input_stays_as_it_was(privacy, scale):
    given, state = updates(scale * rows()), privacy.init(D)
    step = rows(1)[0]
    copies = [given.matrix.clone(), given.num_examples.clone(), step.clone()]
    before = {name: tensor.clone() for name, tensor in state.items()}
    privacy.on_client(given, state, rng())
    privacy.on_receipt(given, state)
    privacy.on_step(step, given, state, rng())
    for tensor, copy in zip((given.matrix, given.num_examples, step), copies, strict=True):
        assert torch.equal(tensor, copy)
    for name, tensor in before.items():
        assert torch.equal(state[name], tensor)


def test_the_same_seed_gives_the_same_bits(privacy):
    given = updates(rows())
    assert torch.equal(sent(privacy, given).matrix, sent(privacy, given).matrix)
    assert torch.equal(released(privacy, given)[0], released(privacy, given)[0])


def test_another_seed_gives_other_bits_where_there_is_noise_and_only_there(privacy, choice):
    given = updates(rows())
    differs = sent(privacy, given, 0).matrix != sent(privacy, given, 1).matrix
    assert differs.all() if choice in NOISY_ROWS else not differs.any()
    differs = released(privacy, given, 0)[0] != released(privacy, given, 1)[0]
    assert differs.all() if choice in NOISY_STEP else not differs.any()


def test_an_empty_cohort_is_a_legal_round(privacy, choice):
    given = received(privacy, sent(privacy, updates(rows(0))))
    step, _ = released(privacy, given)
    assert (step != 0).all() if choice in NOISY_STEP else not step.any()


def test_what_one_client_sends_depends_on_no_other_client(privacy):
    given = updates(10 * rows())
    whole = sent(privacy, given).matrix
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    some = order[:5]
    subset = replace(
        given,
        matrix=given.matrix[some],
        client_ids=tuple(some.tolist()),
        num_examples=given.num_examples[some],
        metrics=given.metrics[:5],
    )
    assert torch.equal(sent(privacy, subset).matrix, whole[some])


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "none"])
def test_rows_of_any_size_are_made_finite_by_whoever_promises_something(privacy):
    given = rows()
    given[1], given[2], given[3], given[4] = 1e30, float("nan"), float("inf"), 0.0
    assert sent(privacy, updates(given)).matrix.isfinite().all()


def test_whoever_promises_something_gives_all_clients_equal_weights(privacy, choice):
    weights = received(privacy, updates(rows())).num_examples
    assert (weights.unique().numel() == 1) == (choice != "none")


def test_the_state_keeps_its_names_shapes_and_types(privacy):
    before = privacy.init(D)
    _, after = released(privacy, updates(rows()))
    assert {k: (v.shape, v.dtype) for k, v in after.items()} == {
        k: (v.shape, v.dtype) for k, v in before.items()
    }


def test_nothing_is_drawn_from_the_global_generators(privacy):
    ours, theirs = torch.get_rng_state(), np.random.get_state()[1].copy()
    given = updates(rows())
    sent(privacy, given)
    released(privacy, given)
    assert torch.equal(torch.get_rng_state(), ours)
    assert (np.random.get_state()[1] == theirs).all()
