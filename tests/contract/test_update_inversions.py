"""What every attack on updates keeps to, whatever it finds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.core.normalise import Normalisation
from fedexp.core.rng import generator, seed_for, seeded
from fedexp.core.step_rule import StepRule
from fedexp.leakage.observation import Knowledge, Observation
from fedexp.models import mlp
from fedexp.tasks.multiclass import Multiclass
from tests.support.composing import choices, part

SHORT = {
    "analytic": (),
    "dlg": ("leakage.dlg.attack.iterations=2", "leakage.dlg.attack.restarts=2"),
    "idlg": ("leakage.idlg.attack.iterations=2", "leakage.idlg.attack.restarts=2"),
    "geiping": ("leakage.geiping.attack.iterations=5", "leakage.geiping.attack.restarts=2"),
    "epochs": ("leakage.epochs.attack.iterations=5", "leakage.epochs.attack.restarts=2"),
}
BATCHES = {"one image": 1, "three images": 3}


@pytest.fixture(params=SHORT)
def attack(request):
    return part("leakage", request.param, *SHORT[request.param]).attack


def observation(batch_size, **changes):
    """A random update of a small MLP on 6x6 images with four classes."""
    with seeded(seed_for(0, "contract"), torch.device("cpu")):
        module = mlp((1, 6, 6), 4, hidden=[8])
    params = torch.cat([p.detach().flatten() for p in module.parameters()])
    rng = generator(0, "contract")
    knowledge = Knowledge(
        module=module,
        params=params,
        normalisation=Normalisation(torch.full((1, 1, 1, 1), 0.4), torch.full((1, 1, 1, 1), 0.3)),
        task=Multiclass(),
        input_shape=(1, 6, 6),
        num_classes=4,
        batch_size=batch_size,
        rule=StepRule(0.1),
        local_steps=1,
        labels=None,
        clip_norm=None,
    )
    update = torch.from_numpy(rng.standard_normal(len(params)).astype(np.float32)) / 100
    return Observation(update, 1, replace(knowledge, **changes))


def test_no_attack_is_missing_here():
    updates = [
        name
        for name in choices("leakage", "exposure")
        if name != "none" and hasattr(part("leakage", name), "attack")
    ]
    assert sorted(updates) == sorted(SHORT)


@pytest.mark.parametrize("batch_size", BATCHES.values(), ids=BATCHES)
def test_it_gives_at_most_the_batch_as_pixels_with_classes(attack, batch_size):
    found = attack(observation(batch_size), generator(0, "attack"))
    assert found.images.shape[1:] == (1, 6, 6)
    assert len(found.images) == len(found.labels) <= batch_size
    assert found.images.dtype == torch.float32
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert found.labels.dtype == torch.int64
    assert set(found.labels.tolist()) <= set(range(4))


def test_the_same_numbers_give_the_same_bits_and_nothing_is_changed(attack):
    seen = observation(3)
    before = seen.update.clone(), seen.knowledge.params.clone()
    state = torch.get_rng_state()
    one, again = (attack(seen, generator(0, "attack")) for _ in range(2))
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.labels, again.labels)
    assert torch.equal(seen.update, before[0])
    assert torch.equal(seen.knowledge.params, before[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_that_were_shared_are_taken(attack):
    known = torch.tensor([1, 1, 3])
    found = attack(observation(3, labels=known), generator(0, "attack"))
    assert set(found.labels.tolist()) <= {1, 3}


def test_an_update_that_says_nothing_is_survived(attack):
    seen = observation(1)
    found = attack(replace(seen, update=torch.zeros_like(seen.update)), generator(0, "attack"))
    assert bool(found.images.isfinite().all())


@pytest.mark.parametrize("exposure", ["clients", "minibatches", "recorded"])
@pytest.mark.parametrize("name", SHORT)
def test_every_attack_takes_updates_from_every_exposure(name, exposure):
    study = part("leakage", name, f"leakage/exposure@leakage.{name}.exposure={exposure}")
    chosen = part("leakage", "geiping", f"leakage/exposure@leakage.geiping.exposure={exposure}")
    assert study.exposure == chosen.exposure
