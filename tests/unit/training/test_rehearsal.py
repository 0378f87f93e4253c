"""What training moves beside the parameters is found by training, not by a name."""

import copy

import pytest
import torch
from torch import nn

from fedexp.core.checks import InputError
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.rehearsal import made_up, refuse_what_moves, rehearse

FEATURES, CLASSES = 6, 3
X, Y = made_up((FEATURES,)), torch.tensor([0, 1, 2])


def behind(layer, size=4):
    return nn.Sequential(nn.Linear(FEATURES, size), layer, nn.Linear(size, CLASSES))


class Own(nn.Module):
    """A linear model that does one thing more while it is trained."""

    def __init__(self, while_training):
        super().__init__()
        self.head, self.while_training = nn.Linear(FEATURES, CLASSES), while_training
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("whole", torch.zeros((), dtype=torch.int64))
        self.still = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.memory = torch.zeros(FEATURES)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.while_training(self, x)
        return self.head(x - self.mean - self.memory) + self.still


def moves(attribute, what):
    return lambda: Own(lambda model, x: getattr(model, attribute).add_(what(x)))


def spectral(norm):
    return lambda: nn.Sequential(norm(nn.Linear(FEATURES, 4)), nn.Linear(4, CLASSES))


MOVING = {
    "BatchNorm": (lambda: behind(nn.BatchNorm1d(4)), r"layer 1 \(BatchNorm1d\).*running_mean"),
    "cumulative": (lambda: behind(nn.BatchNorm1d(4, momentum=None)), r"layer 1 \(BatchNorm1d\)"),
    "spectral norm": (spectral(nn.utils.parametrizations.spectral_norm), r"_u\)"),
    "the older one": (spectral(nn.utils.spectral_norm), r"layer 0 \(Linear\).*weight_u"),
    "own mean": (moves("mean", lambda x: 0.1 * x.mean(0)), r"\(the model itself\).*buffer mean"),
    "own count": (moves("count", lambda x: 1), "buffer count"),
    "whole numbers": (moves("whole", lambda x: 1), "buffer whole"),
}


@pytest.mark.parametrize("name", MOVING)
def test_a_buffer_that_training_moves_is_refused_by_name(name):
    make, words = MOVING[name]
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=rf"keeps running statistics.*{words}|{words}") as refused:
        refuse_what_moves(model, Multiclass(), X, Y, averaged=False)
    assert refused.value.key == "model"
    assert "buffers=average" in str(refused.value)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    refuse_what_moves(model, Multiclass(), X, Y, averaged=True)


STILL = {
    "no statistics": lambda: behind(nn.BatchNorm1d(4, track_running_stats=False)),
    "GroupNorm": lambda: behind(nn.GroupNorm(2, 4)),
    "weight norm": lambda: behind(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
    "dropout": lambda: behind(nn.Dropout(0.5)),
    "constants": lambda: Own(lambda model, x: None),
}
STILL["statistics that never move"] = lambda: behind(_Locked(4))


class _Locked(nn.BatchNorm1d):
    """The common way to freeze batch norm: it stays as in evaluation."""

    def train(self, mode=True):
        return super().train(False)


@pytest.mark.parametrize("name", STILL)
def test_a_module_that_keeps_still_is_not(name):
    refuse_what_moves(STILL[name](), Multiclass(), X, Y, averaged=False)


def test_a_frozen_parameter_that_moves_is_refused_whatever_becomes_of_buffers():
    model = moves("still", lambda x: 1)()
    for averaged in (False, True):
        with pytest.raises(InputError, match="parameter still, which is frozen"):
            refuse_what_moves(model, Multiclass(), X, Y, averaged)


def test_a_memory_that_is_no_buffer_is_refused():
    with pytest.raises(InputError, match="outside its parameters and buffers"):
        refuse_what_moves(
            moves("memory", lambda x: x.mean(0))(), Multiclass(), X, Y, averaged=False
        )


def test_a_step_that_fails_is_left_to_the_rehearsal_of_the_trainer():
    class Fails(nn.Linear):
        def forward(self, x):
            if self.training:
                raise ValueError("not like this")
            return super().forward(x)

    moved = rehearse(Fails(FEATURES, CLASSES), Multiclass(), X, Y)
    assert (moved.buffers, moved.frozen, moved.elsewhere) == ((), (), False)


class OnlyInTraining(nn.Module):
    """Counts its batches outside of its buffers, and goes by that while it is trained."""

    def __init__(self):
        super().__init__()
        self.head, self.batches = nn.Linear(FEATURES, CLASSES), 0

    def forward(self, x):
        self.batches += self.training
        return self.head(x * (1 + self.batches) if self.training else x)


class DrawsInEvaluation(OnlyInTraining):
    def forward(self, x):
        return nn.functional.dropout(self.head(x))


@pytest.mark.parametrize("kind", [OnlyInTraining, DrawsInEvaluation])
def test_what_answers_otherwise_the_second_time_is_refused(kind):
    with pytest.raises(InputError, match=r"remembers examples outside.*draws at random in eval"):
        refuse_what_moves(kind(), Multiclass(), X, Y, averaged=False)


def test_what_draws_in_training_alone_is_no_memory():
    refuse_what_moves(behind(nn.Dropout(0.5)), Multiclass(), X, Y, averaged=False)


def test_numbers_that_share_a_place_in_memory_are_refused():
    model = nn.Linear(FEATURES, CLASSES)
    model.register_buffer("scale", torch.ones(1).expand(CLASSES))
    with pytest.raises(InputError, match="numbers of its scale share one place in memory"):
        refuse_what_moves(model, Multiclass(), X, Y, averaged=False)
