"""Class weights, focal loss and weighted sampling, against other libraries and numbers by hand."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.types import ClientTask
from fedexp.leakage.updates.exposure import refuse_corrected_steps
from fedexp.tasks.multiclass import Multiclass
from fedexp.tasks.multilabel import Multilabel
from fedexp.training.sgd import LocalSGD
from fedexp.training.steps import Work, ordinary_steps
from tests.support.composing import config_for, part
from tests.support.refusing import refusal

RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(200, 3, generator=RNG)
Y = torch.randint(0, 3, (200,), generator=RNG)
MARKS = (torch.rand(200, 3, generator=RNG) < 0.2).to(torch.uint8)


def test_focal_loss_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(9.0)]])  # p = 3/4 1/4, 1/10 9/10
    losses = Multiclass("focal", gamma=2.0).losses(logits, torch.tensor([0, 0]))
    expected = [0.25**2 * -math.log(0.75), 0.9**2 * -math.log(0.1)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    weighed = Multiclass("focal", 2.0, [5.0, 1.0])
    assert float(weighed.loss(logits, torch.tensor([0, 1]))) == pytest.approx(
        (5 * expected[0] + 0.1**2 * -math.log(0.9)) / 2, rel=1e-5
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_of_labels_is_torchvisions(gamma):
    ours = Multilabel("focal", gamma).losses(LOGITS, MARKS)
    theirs = sigmoid_focal_loss(LOGITS, MARKS.float(), alpha=-1, gamma=gamma)
    torch.testing.assert_close(ours, theirs.mean(1))
    # Their alpha weighs present by alpha, absent by 1 - alpha.
    ours = Multilabel("focal", gamma, [3.0] * 3).loss(LOGITS, MARKS)
    theirs = sigmoid_focal_loss(LOGITS, MARKS.float(), alpha=0.75, gamma=gamma)
    torch.testing.assert_close(ours, 4 * theirs.mean())


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("task", [Multiclass, Multilabel])
def test_focal_loss_has_a_slope_where_everything_is_right_already(task, gamma):
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    y = torch.tensor([0]) if task.one_class else torch.tensor([[1, 0]])
    (slope,) = torch.autograd.grad(task("focal", gamma).loss(logits, y), logits)
    assert slope.tolist() == [[0, 0]]


def test_without_an_exponent_focal_loss_is_cross_entropy():
    assert torch.equal(Multiclass("focal", 0.0).losses(LOGITS, Y), Multiclass().losses(LOGITS, Y))
    soft = LOGITS.softmax(dim=1)
    near = Multiclass("focal", 1e-9, [1.0, 2.0, 3.0]).losses(LOGITS, soft)
    exact = Multiclass(class_weights=[1.0, 2.0, 3.0]).losses(LOGITS, soft)
    torch.testing.assert_close(near, exact)
    hard = Multiclass("focal", 2.0).losses(LOGITS, F.one_hot(Y, 3).float())
    torch.testing.assert_close(hard, Multiclass("focal", 2.0).losses(LOGITS, Y))


def test_weights_multiply_and_the_ignored_label_has_no_loss():
    plain = F.cross_entropy(LOGITS, Y, reduction="none")
    weights = torch.tensor([0.5, 1.0, 4.0])
    for task in (Multiclass(class_weights=[0.5, 1.0, 4.0]), Multiclass().of_client(Y)):
        w = weights if task.weights else torch.ones(3)
        torch.testing.assert_close(task.losses(LOGITS, Y), plain * w[Y])
    task = Multiclass("focal", 2.0, [0.5, 1.0, 4.0])
    y = torch.where(torch.arange(200) < 50, Multiclass.ignored, Y)
    assert task.losses(LOGITS, y)[:50].abs().max() == 0
    torch.testing.assert_close(task.loss(LOGITS, y), task.loss(LOGITS[50:], Y[50:]))


def test_balanced_weights_are_scikit_learns_of_the_clients_own_labels():
    y = torch.tensor([0] * 6 + [2] * 2)
    task = Multiclass(class_weights="balanced")
    own = task.of_client(y)
    theirs = compute_class_weight("balanced", classes=np.array([0, 2]), y=y.numpy())
    assert own.weights == pytest.approx((theirs[0], 1.0, theirs[1]))
    logits = torch.zeros(8, 4)  # more classes than the client has
    assert float(own.loss(logits, y)) == pytest.approx(math.log(4))  # the mean weight is 1
    assert own.losses(logits, y)[7] == pytest.approx(2.0 * math.log(4))
    assert pickle.loads(pickle.dumps(own)) == own
    assert task.losses(logits, y).tolist() == Multiclass().losses(logits, y).tolist()
    one_class = task.of_client(torch.ones(5, dtype=torch.int64))
    assert one_class.weights == (1.0, 1.0)


def test_balanced_weights_of_labels_are_scikit_learns_label_by_label():
    own = Multilabel("focal", 2.0, "balanced").of_client(MARKS)
    theirs = np.stack([compute_sample_weight("balanced", column) for column in MARKS.numpy().T], 1)
    plain = sigmoid_focal_loss(LOGITS, MARKS.float(), alpha=-1, gamma=2.0)
    expected = (plain.double() * torch.from_numpy(theirs)).mean(1)
    torch.testing.assert_close(own.losses(LOGITS, MARKS).double(), expected)
    nobody = Multilabel(class_weights="balanced").of_client(torch.zeros(4, 2, dtype=torch.uint8))
    assert (nobody.weights, nobody.absent) == ((1.0, 1.0), (1.0, 1.0))


def test_what_is_measured_is_cross_entropy_whatever_is_trained_on():
    for plain, other in (
        (Multiclass(), Multiclass("focal", 2.0, [1.0, 2.0, 3.0])),
        (Multilabel(), Multilabel("focal", 2.0, "balanced")),
    ):
        y = Y if plain.one_class else MARKS
        assert other.measure(LOGITS, y) == plain.measure(LOGITS, y)


def test_the_loss_at_the_defaults_is_torchs_to_the_bit():
    assert torch.equal(part("task", "multiclass").loss(LOGITS, Y), F.cross_entropy(LOGITS, Y))
    ours = part("task", "multilabel").loss(LOGITS, MARKS)
    assert torch.equal(ours, F.binary_cross_entropy_with_logits(LOGITS, MARKS.float()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"loss": "focall"}, "loss=focall: did you mean focal"),
        ({"gamma": -1.0}, "gamma=-1.0: must be a finite number, 0 or above"),
        ({"class_weights": "balance"}, "class_weights=balance: did you mean balanced"),
        ({"class_weights": [1.0, -2.0]}, "class_weights=-2.0: must be a finite number, 0 or above"),
        ({"class_weights": [1.0, math.nan]}, "class_weights=nan: must be a finite number"),
        ({"class_weights": [0.0, 0.0]}, "must have a weight above 0"),
    ],
)
@pytest.mark.parametrize("task", [Multiclass, Multilabel])
def test_what_is_no_loss_is_refused(task, arguments, said):
    with pytest.raises(InputError) as caught:
        task(**arguments)
    assert said in str(caught.value)


def test_weights_for_another_number_of_classes_are_refused():
    assert "one weight for each of 10 classes" in refusal(config_for("task.class_weights=[1,2,3]"))


# In training


class Two(torch.nn.Module):
    """Logits (0, w): the gradient of the loss in w is weight times (p - y)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), self.w.expand(len(x))], dim=1)


def first_step(task, y, work):
    model = TaskModel(Two(), torch.device("cpu"), task)
    shard = Split(torch.zeros(len(y), 1), torch.tensor(y))
    client = ClientTask(0, model.vector, 0, seed=7)
    return next(ordinary_steps(model, shard, client, work))


def test_a_client_trains_with_its_own_weights():
    y, whole = [0] * 9 + [1], Work(None, None, 1)
    assert float(first_step(Multiclass(), y, whole).gradients[0]) == pytest.approx(0.4)
    # 9 of class 0 weigh 10/18 each, 1 of class 1 weighs 5: they pull alike.
    step = first_step(Multiclass(class_weights="balanced"), y, whole)
    assert float(step.gradients[0]) == pytest.approx(0.0, abs=1e-6)
    step = first_step(Multiclass(class_weights=[1.0, 3.0]), y, whole)
    assert float(step.gradients[0]) == pytest.approx((9 * 0.5 - 3 * 0.5) / 10)


def test_balanced_sampling_draws_every_class_as_often():
    y = [0] * 900 + [1] * 100
    step = first_step(Multiclass(), y, Work(None, None, 1, "balanced"))
    share = 0.5 - float(step.gradients[0])  # of class 1 among the draws
    assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(1000))
    again = first_step(Multiclass(), y, Work(None, None, 1, "balanced"))
    assert torch.equal(step.gradients[0], again.gradients[0])


def test_balanced_sampling_of_labels_draws_every_combination_as_often():
    from fedexp.training.steps import _balanced

    marks = torch.tensor([[0, 0]] * 700 + [[1, 0]] * 200 + [[1, 1]] * 100, dtype=torch.uint8)
    drawn = marks[_balanced(marks, torch.Generator().manual_seed(0))]
    _, counts = torch.unique(drawn, dim=0, return_counts=True)
    assert counts.tolist() == pytest.approx([1000 / 3] * 3, abs=4 * math.sqrt(1000 * 2 / 9))


def test_updates_of_balanced_sampling_cannot_be_read_as_gradients():
    trainer = part("training", "sgd", "training.sampling=balanced", "training.batch_size=null")
    assert trainer.step_rule(0) is None
    assert part("training", "sgd").step_rule(0) is not None


class OfClient:
    """A task of one's own without class weights."""

    def of_client(self, y):
        return OfClient()


def test_updates_that_a_clients_own_labels_weighed_cannot_be_read_as_gradients():
    pixels = SimpleNamespace(train=SimpleNamespace(y=Y))
    server = SimpleNamespace(algorithm=part("algorithm", "fedavg"))
    victim = SimpleNamespace(pixels=pixels, experiment=SimpleNamespace(server=server))
    victim.task = Multiclass(class_weights=[1.0, 2.0, 3.0])
    refuse_corrected_steps(victim)
    victim.task = Multiclass(class_weights="balanced")
    with pytest.raises(InputError, match=r"task.class_weights=balanced: weighs every client"):
        refuse_corrected_steps(victim)
    victim.task = OfClient()
    with pytest.raises(InputError, match=r"^task=\S*OfClient: makes every client's loss"):
        refuse_corrected_steps(victim)


def test_another_sampling_is_refused():
    node = config_for()["training"]
    assert node["sampling"] == "shuffled"
    values = {k: v for k, v in node.items() if not k.startswith("_")}
    with pytest.raises(InputError, match="sampling=weighted: "):
        LocalSGD(**{**values, "schedule": float, "sampling": "weighted"})


# Under differential privacy

DP = ("privacy=dp_sgd", "privacy.noise_multiplier=1", "privacy.target_epsilon=null")


def test_dp_sgd_takes_weights_that_are_the_same_for_everybody():
    model = TaskModel(
        torch.nn.Linear(4, 3), torch.device("cpu"), Multiclass("focal", 2.0, [9, 1, 1])
    )
    step = part("privacy", "dp_sgd", *DP[1:])._steps(0.0)
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    client = ClientTask(0, model.vector, 0, seed=3)
    (made,) = step(model, Split(100 * x, y), client, Work(None, None, 1))
    flat = torch.cat([g.reshape(-1) for g in made.gradients])
    assert 0 < float(flat.norm()) <= step.clip_norm * (1 + 1e-5)  # whatever the weight of 9


def test_dp_sgd_refuses_weights_and_sampling_that_go_by_other_examples():
    said = refusal(config_for(*DP, "task.class_weights=balanced"))
    assert said.startswith("task.class_weights=balanced: weighs an example by how many others")
    said = refusal(config_for(*DP, "training.sampling=balanced"))
    assert said.startswith("training.sampling=balanced: draws examples of rare classes more often")


def test_dp_sgd_refuses_a_task_of_ones_own_that_goes_by_labels_in_its_own_name():
    mechanism = part("privacy", "dp_sgd", *DP[1:])
    with pytest.raises(InputError, match=r"^task=\S*OfClient: is another one for a client"):
        mechanism.check_model(torch.nn.Linear(4, 3), OfClient(), torch.randn(3, 4), Y[:3])


def test_dp_sgd_has_no_last_batch_to_leave_out():
    said = refusal(config_for(*DP, "training.drop_last=true"))
    assert said.startswith("training.drop_last=True: has no effect with DP-SGD")
