"""DP-SGD bounds what one example adds, whatever the model does and whatever the example is."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.privacy.dp_sgd import DPSGD
from fedexp.privacy.lone_examples import refuse_examples_that_mix
from fedexp.privacy.private_steps import CLIPPING, PrivateSteps
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.per_example import Factors
from fedexp.training.rehearsal import made_up
from fedexp.training.steps import Work
from tests.support.private_models import IMAGE, SHIPPED, built, private, sgd, shard
from tests.unit.privacy.test_private_steps import steps_of
from tests.unit.training.test_per_example import OTHERS

LABELS = torch.tensor([0, 1, 2])


class Mixing(nn.Module):
    """A linear model with one line before or behind it."""

    def __init__(self, before=lambda x: x, behind=lambda h: h):
        super().__init__()
        self.head, self.before, self.behind = nn.Linear(240, 3), before, behind

    def forward(self, x):
        return self.behind(self.head(self.before(x.flatten(1))))


class OnlyInTraining(Mixing):
    def forward(self, x):
        x = x.flatten(1)
        return self.head(x - x.mean(0)) if self.training else self.head(x)


class Remembers(Mixing):
    seen = 0.0

    def forward(self, x):
        x = x.flatten(1)
        previous, self.seen = self.seen, x.detach().mean(dim=0)
        return self.head(x + previous)


def hooked(h):
    if h.requires_grad:
        h.register_hook(lambda g: g - g.mean(dim=0))
    return h


class Mixup(Mixing):
    """Of examples in an order that is drawn, by a share that is drawn, now and then, in training.

    In the first draw of three that is looked at, the first example stays where it is.
    """

    def __init__(self, sometimes=1.0, batch=0):
        super().__init__()
        self.sometimes, self.batch = sometimes, batch

    def forward(self, x):
        x = x.flatten(1)
        if self.training and len(x) >= self.batch and torch.rand(()) < self.sometimes:
            x = x.lerp(x[torch.randperm(len(x))], float(torch.rand(())))
        return self.head(x)


class Tied(nn.Module):
    """A layer's weight is used a second time, where no pass of the layer shows it."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(240, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.inner(x.flatten(1))
        return self.head(F.linear(F.linear(h, self.inner.weight.t()), self.inner.weight))


def scaled():
    model = Mixing()
    model.head.register_forward_hook(lambda layer, inputs, output: 3 * output)
    return model


def attention(x):
    return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]


MIXERS = {
    "mean of the batch": lambda: Mixing(lambda x: x - x.mean(0)),
    "a millionth of it": lambda: Mixing(lambda x: x - 1e-6 * x.mean(0)),
    "functional batch norm": lambda: Mixing(lambda x: F.batch_norm(x, None, None, training=True)),
    "attention over the batch": lambda: Mixing(attention),
    "largest of the batch": lambda: Mixing(lambda x: x / x.abs().max()),
    "logits": lambda: Mixing(behind=lambda h: h.softmax(dim=0)),
    "gradients alone": lambda: Mixing(behind=hooked),
    "in training alone": OnlyInTraining,
    "batches before": Remembers,
    "mixup": Mixup,
    "mixup now and then": lambda: Mixup(sometimes=0.3),
    "mixup of larger batches": lambda: Mixup(batch=6),
}


def check(model, task=None):
    refuse_examples_that_mix(model, task or Multiclass(), made_up(IMAGE), LABELS)


@pytest.mark.parametrize("name", MIXERS)
def test_a_model_that_mixes_the_examples_of_a_batch_is_refused(name):
    model = built(MIXERS[name])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=r"mixes the examples|remembers examples") as refused:
        check(model)
    assert refused.value.key == "model"
    assert "\n" not in str(refused.value)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("make", [Tied, scaled])
def test_a_model_whose_layers_do_not_have_all_of_its_gradients_is_refused(make):
    with pytest.raises(InputError, match="gradients that are not those of its layers alone"):
        check(built(make))


class Balanced(Multiclass):
    """Weighs an example by how many of its class are in the batch."""

    def losses(self, logits, y):
        counts = F.one_hot(y, logits.shape[1]).sum(dim=0)
        return super().losses(logits, y) / counts[y]


def test_a_task_whose_losses_look_at_other_labels_is_refused():
    with pytest.raises(InputError, match="the losses of the others move"):
        refuse_examples_that_mix(
            built(SHIPPED["mlp"]), Balanced(), made_up(IMAGE), torch.tensor([0, 1, 1])
        )


class DividedByTheBatch(Multiclass):
    """Losses that are a mean already."""

    def losses(self, logits, y):
        return super().losses(logits, y) / len(y)


def test_a_task_whose_losses_go_by_the_size_of_a_batch_is_refused():
    with pytest.raises(InputError, match="when one of 3 is left out, the losses of the others"):
        check(built(SHIPPED["mlp"]), DividedByTheBatch())


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "resnet18"])
def test_shipped_models_take_every_example_by_itself(name):
    check(built(SHIPPED[name]))


@pytest.mark.slow
def test_the_largest_one_too():
    check(built(SHIPPED["resnet18"]))


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "sequences"])
def test_layers_of_all_kinds_take_every_example_by_itself(name):
    check(built(OTHERS[name]))


def test_dropout_is_no_mixing():
    check(nn.Sequential(nn.Flatten(), nn.Linear(240, 20), nn.Dropout(0.5), nn.Linear(20, 3)))


def test_the_mechanism_checks_layers_and_examples():
    arguments = {"clip_norm": 1.0, "noise_multiplier": 1.0, "clipping": "auto"}
    promise = {"noise_seed": "task", "delta": 1e-5, "accountant": "rdp", "target_epsilon": None}
    mechanism = DPSGD(**arguments, **promise, max_epsilon=None, allow_no_noise=False)
    with pytest.raises(InputError, match="mixes the examples"):
        mechanism.check_model(
            built(MIXERS["mean of the batch"]), Multiclass(), made_up(IMAGE), LABELS
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e25, 3e38])
@pytest.mark.parametrize("clipping", CLIPPING)
@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_an_example_of_any_value_moves_a_step_by_no_more_than_the_bound(name, clipping, value):
    module, data = built(SHIPPED[name]), shard(4)
    others = data.rows(torch.arange(1, 4))
    x = data.x.clone()
    x[0] = value
    rule, work = PrivateSteps(0.3, 0.0, clipping, "task"), Work(None, None, 1)
    (step,) = steps_of(rule, module, Split(x, data.y), work)
    (without,) = steps_of(rule, module, others, work)
    assert step.flat.isfinite().all()
    # Sums, not means: the divisor is the number of examples, 4 and 3 of them.
    assert float((4 * step.flat - 3 * without.flat).norm()) <= 0.3 * (1 + 1e-3)


def test_places_that_cancel_do_not_make_a_norm_too_small():
    g = torch.Generator().manual_seed(0)
    a = 1e4 + torch.randn(5, 16, 8, generator=g)
    slopes = torch.randn(5, 16, 8, generator=g)
    slopes -= slopes.mean(dim=1, keepdim=True)  # what is common to all places is gone
    factors = Factors(a, slopes, torch.zeros(8, 8), torch.zeros(8))
    found = factors.squared_norms().sqrt()
    true = torch.linalg.vector_norm(
        torch.bmm(slopes.double().transpose(1, 2), a.double()).flatten(1), dim=1
    )
    assert (found >= 0.999 * true).all()


def test_where_nothing_cancels_the_norm_is_exact():
    g = torch.Generator().manual_seed(0)
    factors = Factors(
        torch.randn(5, 16, 8, generator=g),
        torch.randn(5, 16, 6, generator=g),
        torch.zeros(6, 8),
        None,
    )
    product = torch.bmm(factors.g.double().transpose(1, 2), factors.a.double())
    true = torch.linalg.vector_norm(product.flatten(1), dim=1)
    torch.testing.assert_close(factors.squared_norms().sqrt().double(), true, rtol=1e-4, atol=0)


class OwnTask(Multiclass):
    def __init__(self, made):
        super().__init__()
        object.__setattr__(self, "made", made)

    def losses(self, logits, y):
        return self.made(super().losses(logits, y))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda losses: losses.mean(), r"and gave \[\] \(losses\)"),
        (lambda losses: losses[:, None], r"and gave \[3, 1\] \(losses\)"),
        (lambda losses: losses.tolist(), r"and gave list \(losses\)"),
        (lambda losses: losses.detach(), "and gave losses without a gradient"),
    ],
)
def test_losses_that_are_not_one_an_example_are_the_tasks(made, said):
    with pytest.raises(InputError, match=rf"^task=\S*OwnTask: must give the loss of each.*{said}"):
        refuse_examples_that_mix(Mixing(), OwnTask(made), made_up(IMAGE), LABELS)


class FromASizeOn(Multiclass):
    """Losses that go by the whole batch, or by its labels, if that is large."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def losses(self, logits, y):
        losses = super().losses(logits, y)
        return losses if len(y) < 20 else losses * self.factor(losses, y)


@pytest.mark.parametrize(
    ("model", "task", "key"),
    [
        (Mixing, FromASizeOn(lambda losses, y: losses.mean()), "task"),
        (Mixing, FromASizeOn(lambda losses, y: 1 / torch.bincount(y)[y]), "task"),
        (lambda: Mixup(batch=20), Multiclass(), "model"),
    ],
)
def test_what_mixes_in_batches_as_large_as_a_runs_is_refused(model, task, key):
    check(model(), task)  # which tries small ones
    data, trained = shard(60), TaskModel(model(), torch.device("cpu"), task)
    private(sgd(batch_size=8)).check_batches(trained, data, [10, 60])
    with pytest.raises(InputError, match="one of 24 is replaced") as refusal:
        private(sgd(batch_size=12)).check_batches(trained, data, [10, 60])
    assert refusal.value.key == key
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_models_that_do_not_mix_in_large_batches_pass(name):
    layers = nn.Sequential(nn.Dropout(0.5), built(SHIPPED[name]))
    model = TaskModel(layers, torch.device("cpu"), Multiclass())
    private(sgd(batch_size=12)).check_batches(model, shard(60), [60])
