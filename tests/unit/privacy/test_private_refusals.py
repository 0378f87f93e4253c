"""What DP-SGD refuses: layers that would void the guarantee, and numbers out of range."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.flat import TaskModel
from fedexp.core.types import ClientReport, ClientTask
from fedexp.privacy.dp_sgd import PrivateTraining
from fedexp.privacy.private_steps import PrivateSteps
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.sgd import LocalSGD
from fedexp.training.steps import ordinary_steps
from tests.support import workloads
from tests.support.private_models import (
    SHIPPED,
    built,
    convolution,
    frozen,
    private,
    sgd,
    shard,
    traces,
    train,
)


def after_flatten(*layers):
    return nn.Sequential(nn.Flatten(), nn.Linear(240, 4), *layers, nn.Linear(4, 3))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(240, 240), nn.Linear(240, 240)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x.flatten(1)))[:, :3]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.again, self.head = nn.Linear(240, 240), nn.Linear(240, 3)

    def forward(self, x):
        return self.head(self.again(self.again(x.flatten(1))))


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(240, 4), nn.Linear(4, 3)

    def forward(self, x):
        return F.linear(self.stem(x.flatten(1)), self.head.weight, self.head.bias)


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.named = nn.Linear(240, 3)

    def forward(self, x):
        return self.named(input=x.flatten(1))


class Folded(nn.Module):
    """Hands a layer half as many rows as there are examples."""

    def __init__(self):
        super().__init__()
        self.folded = nn.Linear(480, 6)

    def forward(self, x):
        return self.folded(x.reshape(-1, 480)).reshape(-1, 3)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.factor


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def normed_by_weight():
    return after_flatten(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))


MIXES, KEEPS, UNKNOWN = "mixes the examples", "keeps statistics", "no known per-example gradients"

REFUSED = {
    "BatchNorm1d": (lambda: after_flatten(nn.BatchNorm1d(4)), "layer 2 ", MIXES),
    "without weights": (lambda: after_flatten(nn.BatchNorm1d(4, affine=False)), "layer 2 ", MIXES),
    "without statistics": (
        lambda: after_flatten(nn.BatchNorm1d(4, track_running_stats=False)),
        "layer 2 ",
        MIXES,
    ),
    "frozen": (
        lambda: frozen(after_flatten(nn.BatchNorm1d(4)), "2.weight", "2.bias"),
        "layer 2 ",
        MIXES,
    ),
    "BatchNorm2d": (lambda: nn.Sequential(nn.BatchNorm2d(2), after_flatten()), "layer 0 ", MIXES),
    "SyncBatchNorm": (
        lambda: nn.Sequential(nn.SyncBatchNorm(2), after_flatten()),
        r"layer 0 \(SyncBatchNorm\)",
        MIXES,
    ),
    "InstanceNorm": (
        lambda: nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True), after_flatten()),
        r"layer 0 \(InstanceNorm2d\)",
        KEEPS,
    ),
    "own parameter": (lambda: after_flatten(Scale()), r"layer 2 \(Scale\)", UNKNOWN + " of factor"),
    "recurrent": (lambda: after_flatten(nn.LSTM(4, 4)), r"layer 2 \(LSTM\)", UNKNOWN),
    "attention": (
        lambda: after_flatten(nn.MultiheadAttention(4, 1)),
        r"layer 2 \(MultiheadAttention\)",
        UNKNOWN,
    ),
    "subclass": (lambda: after_flatten(Doubled(4, 4)), r"layer 2 \(Doubled\)", UNKNOWN),
    "weight norm": (normed_by_weight, r"layer 2 \(ParametrizedLinear\)", UNKNOWN),
    "nested": (lambda: nn.Sequential(after_flatten(nn.PReLU())), r"layer 0\.2 \(PReLU\)", UNKNOWN),
    "padding mode": (
        lambda: convolution(kernel_size=3, padding=1, padding_mode="circular"),
        "layer 0 ",
        "padding_mode=circular",
    ),
    "tied": (Tied, "layer second ", "shares a parameter with layer first"),
    "twice": (Twice, "layer again ", "used twice"),
    "elsewhere": (Elsewhere, "layer head ", "did not run"),
    "keyword": (ByKeyword, "layer named ", "one tensor with a row for each example"),
    "folded": (Folded, "layer folded ", "one tensor with a row for each example"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_would_void_the_guarantee_is_refused_by_name(name):
    make, layer, reason = REFUSED[name]
    net = built(make)
    model = TaskModel(net, torch.device("cpu"), Multiclass())
    start = model.vector.clone()
    before = traces(model.module)
    with pytest.raises(InputError, match=f"{layer}.*{reason}") as refusal:
        private(sgd(batch_size=None))(model, shard(6), ClientTask(0, start, 0, 1))
    assert refusal.value.key == "model"
    assert "\n" not in str(refusal.value)
    assert torch.equal(model.vector, start)
    assert traces(model.module) == before


class Counts(nn.Module):
    """Remembers what it saw, with nothing to train and no name that gives it away."""

    def __init__(self, factor):
        super().__init__()
        self.head, self.factor = nn.Linear(240, 3), factor
        self.register_buffer("seen", torch.ones(()))

    def forward(self, x):
        self.seen += self.factor * x.detach().mean()
        return self.head(x.flatten(1))


def test_a_buffer_that_remembers_examples_is_refused():
    still, _ = train(private(), Counts(0.0), shard(6))
    assert still[-1] == 1
    with pytest.raises(InputError, match="buffers"):
        train(private(), Counts(1.0), shard(6))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": math.inf}, "clip_norm"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"clipping": "goast"}, "clipping"),
    ],
)
def test_refused_numbers(changes, key):
    with pytest.raises(InputError) as refusal:
        private(**changes)
    assert refusal.value.key == key


def test_a_trainer_with_gradients_of_its_own_is_refused():
    with pytest.raises(InputError, match="makes its own gradients"):
        PrivateTraining(workloads.Raises(), PrivateSteps(1.0, 1.0, "auto", "task"))


class GoesTwice(LocalSGD):
    """A trainer of one's own that goes over the steps it was given twice."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        super().__call__(model, shard, task, steps)
        return super().__call__(model, shard, task, steps)


class Deaf(LocalSGD):
    """One that makes steps of its own, whatever it was given."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        return super().__call__(model, shard, task)


class Idle(LocalSGD):
    """One that makes no step at all."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        return ClientReport(len(shard), 0, {})


class SetsABias(LocalSGD):
    """One that ends with what it has counted in its labels."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        report = super().__call__(model, shard, task, steps)
        with torch.no_grad():
            model.parameters[-1].copy_(torch.bincount(shard.y, minlength=3).float())
        return report


class GoesByBatches(LocalSGD):
    """One that keeps what it is shown of its batches."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        shown = {(str(s.loss), s.examples) for s in steps(model, shard, task, self.work())}
        assert shown == {("tensor(nan)", 5)}
        return ClientReport(len(shard), 0, {"loss": 0.0})


class OtherBatches(LocalSGD):
    """One that says one thing of its work and does another."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        return replace(as_plain(self), batch_size=None)(model, shard, task, steps)


class Silent(LocalSGD):
    """One that reports nothing."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        super().__call__(model, shard, task, steps)


def as_plain(trainer):
    return LocalSGD(**{field.name: getattr(trainer, field.name) for field in fields(trainer)})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (GoesTwice, "asks for its steps twice"),
        (Deaf, r"looks at a client's examples \(shard.x\)"),
        (Idle, r"made 0 of the \d+ steps"),
        (SetsABias, r"looks at a client's examples \(shard.y\)"),
        (OtherBatches, "asks for other steps"),
        (Silent, "must return a ClientReport, and returned a NoneType"),
    ],
)
def test_a_trainer_that_does_not_train_on_the_steps_it_is_given_is_refused(kind, reason):
    own = kind(**vars(sgd()))
    with pytest.raises(InputError, match=reason) as refusal:
        train(private(own), built(SHIPPED["mlp"]), shard(10))
    assert refusal.value.key == "training"


def test_a_trainer_sees_of_a_batch_what_has_noise_and_the_record_the_rest():
    own = GoesByBatches(**vars(sgd(batch_size=5)))
    _, report = train(private(own), built(SHIPPED["mlp"]), shard(20))
    _, ours = train(private(sgd(batch_size=5)), built(SHIPPED["mlp"]), shard(20))
    assert report.processed == ours.processed > 0  # the batches are the same ones
    assert report.metrics["loss"] > 0


class Watches(LocalSGD):
    """One that looks through the model at the examples, and has its own task say their losses."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        seen = []
        for layer in model.module.modules():
            layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs))
        for parameter in model.parameters:
            parameter.register_hook(seen.append)
        model.task, model.arrange = Twice(), seen.append
        report = super().__call__(model, shard, task, steps)
        assert not seen
        return report


class Twice(Multiclass):
    def losses(self, logits, y):
        return 2 * super().losses(logits, y)


class Replaces(LocalSGD):
    """One that ends with a parameter of its own in the place of the model's."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        report = super().__call__(model, shard, task, steps)
        model.module.get_submodule("1").bias = nn.Parameter(torch.zeros(9))
        return report


def test_a_trainer_cannot_watch_the_passes_that_its_steps_are_made_by():
    net, data = built(SHIPPED["mlp"]), shard(10)
    watched, _ = train(private(Watches(**vars(sgd()))), net, data)
    assert torch.equal(watched, train(private(), net, data)[0])
    with pytest.raises(InputError, match="puts other tensors"):
        train(private(Replaces(**vars(sgd()))), net, data)


class InEvaluation(LocalSGD):
    """One that leaves dropout out after its first step."""

    def __call__(self, model, shard, task, steps=ordinary_steps):
        for step in steps(model, shard, task, self.work()):
            self._update_rule(model.parameters, task.round)(step.gradients)
            model.module.eval()
        return ClientReport(len(shard), 0, {"loss": 0.0})


def test_the_passes_are_in_the_mode_that_the_trainer_has_its_model_in():
    data, own = shard(10), InEvaluation(**vars(sgd(batch_size=None, epochs=3)))
    without, _ = train(private(own), nn.Sequential(nn.Dropout(0.5), built(SHIPPED["mlp"])), data)
    plain = sgd(batch_size=None, epochs=3)
    dropped, _ = train(private(plain), nn.Sequential(nn.Dropout(0.5), built(SHIPPED["mlp"])), data)
    assert not torch.equal(without, dropped)
