"""Noise drawn one step ahead: the numbers of one stream, in its order, and no more of them."""

import threading

import pytest
import torch

from fedexp.privacy import noise_ahead as module
from fedexp.privacy.noise_ahead import noise_ahead

STEPS, D = 4, 3


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request, monkeypatch):
    monkeypatch.setattr(module, "cores_to_spare", lambda: request.param)
    return request.param


class Stream:
    """Fills vectors with 1, 2, 3, ...; keeps which threads asked."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.drawn = 0
        self.threads: set[str] = set()
        self.fails_at = fails_at

    def __call__(self, vector: torch.Tensor) -> None:
        self.drawn += 1
        self.threads.add(threading.current_thread().name)
        if self.drawn == self.fails_at:
            raise ValueError("no more numbers")
        vector.fill_(self.drawn)


def test_every_step_starts_from_the_next_numbers_whatever_the_one_before_left(cores):
    stream, gradient = Stream(), torch.empty(D)
    seen = []
    for _ in noise_ahead(stream, gradient, STEPS):
        seen.append(gradient.tolist())
        gradient.add_(100)
    assert seen == [[k] * D for k in (1, 2, 3, 4)]
    assert stream.drawn == STEPS


def test_a_thread_draws_where_a_core_is_free(cores):
    stream = Stream()
    for _ in noise_ahead(stream, torch.empty(D), STEPS):
        pass
    elsewhere = stream.threads != {threading.current_thread().name}
    assert elsewhere == (cores == 2)


def test_no_thread_is_left_when_a_round_is_broken_off(cores):
    before = threading.active_count()
    steps = noise_ahead(Stream(), torch.empty(D), STEPS)
    next(steps)
    steps.close()
    assert threading.active_count() == before


def test_what_fails_in_the_thread_fails_the_step(cores):
    steps = noise_ahead(Stream(fails_at=2), torch.empty(D), STEPS)
    next(steps)
    with pytest.raises(ValueError, match="no more numbers"):
        next(steps)
