"""A Gaussian learned from images: its likelihood, and what an inversion makes of it."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import fedexp
from fedexp.core.checks import InputError
from fedexp.core.normalise import Normalisation
from fedexp.leakage.updates.geiping import Geiping
from fedexp.leakage.updates.learned_prior import GaussianPrior
from fedexp.models import lenet
from fedexp.tasks.multiclass import Multiclass
from tests.support.observing import CLASSES, batches, digits, initialised, observed, psnr_db

DATA = digits()
KIND = DATA.x[500:]  # the adversary's
SCALE, TASK = Normalisation.of(DATA), Multiclass()
ATTACK = Geiping(total_variation=0.01, lr=0.1, iterations=60, restarts=1, unrolled=False)
LEARNED = dataclasses.replace(ATTACK, learned_prior=0.01)


def test_it_is_the_log_likelihood_of_probabilistic_principal_components():
    prior = GaussianPrior.of(KIND, 0.9)
    d, u = 64, prior.components.double()
    assert torch.allclose(u @ u.T, torch.eye(len(u), dtype=torch.float64), atol=1e-6)
    spread = prior.variances.double() - prior.rest
    covariance = (u.T * spread) @ u + prior.rest * torch.eye(d, dtype=torch.float64)
    gaussian = multivariate_normal(prior.mean.numpy(), covariance.numpy())
    images = torch.cat([DATA.x[:3], torch.rand(2, 1, 8, 8, generator=torch.Generator())])
    energies = np.array([float(prior(image[None])) for image in images])
    likelihoods = gaussian.logpdf(images.flatten(1).numpy())
    # Up to the constant, which falls out of differences.
    np.testing.assert_allclose(
        (energies - energies[0]) * d / 2, likelihoods[0] - likelihoods, rtol=1e-3, atol=1e-2
    )
    assert float(prior(images)) == pytest.approx(energies.mean(), rel=1e-4)


def test_its_covariance_is_that_of_the_images():
    prior = GaussianPrior.of(KIND, 0.95)
    rows = KIND.flatten(1).double()
    total = float(prior.variances.sum()) + (64 - len(prior.variances)) * prior.rest
    assert total == pytest.approx(float(rows.var(dim=0).sum()), rel=1e-3)
    assert float(prior.variances.sum()) >= 0.95 * total
    assert torch.allclose(prior.mean.double(), rows.mean(dim=0), atol=1e-6)


def test_an_image_of_the_kind_is_likelier_than_noise():
    prior = GaussianPrior.of(KIND, 0.99)
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(prior(KIND)) == pytest.approx(1, abs=0.02)
    assert float(prior(DATA.x[:500])) < 1.5
    assert float(prior(noise)) > 10


def test_pixels_that_never_differ_do_not_divide_by_zero():
    images = torch.zeros(4, 1, 2, 2)
    images[:2, 0, 0, 0] = 1
    prior = GaussianPrior.of(images, 0.99)
    assert prior.rest > 0
    assert torch.isfinite(prior(torch.rand(3, 1, 2, 2)))


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 2, 2), torch.ones(5, 1, 2, 2)])
def test_nothing_is_learned_from_images_that_do_not_differ(images):
    with pytest.raises(InputError, match="at least two images of the kind that differ"):
        GaussianPrior.of(images, 0.99)


def seen_by_somebody_with_images(model, batch, images):
    seen = observed(model, DATA, batch, labels=batch.y)
    knowledge = dataclasses.replace(seen.knowledge, images=images, task=TASK, normalisation=SCALE)
    return dataclasses.replace(seen, knowledge=knowledge)


def test_who_knows_the_kind_finds_more():
    model = initialised(lenet, (1, 8, 8), CLASSES, activation="relu", init="default")
    gains = []
    for number, batch in enumerate(batches(DATA, 2, 4)):
        there = seen_by_somebody_with_images(model, batch, KIND)
        with_it, without = (
            attack(there, np.random.default_rng(number)).images for attack in (LEARNED, ATTACK)
        )
        gains.append(float((psnr_db(with_it, batch.x) - psnr_db(without, batch.x)).mean()))
    assert np.mean(gains) > 1


def test_together_as_one_after_the_other():
    model = initialised(lenet, (1, 8, 8), CLASSES, activation="relu", init="default")
    several = [seen_by_somebody_with_images(model, batch, KIND) for batch in batches(DATA, 1, 2)]
    few = dataclasses.replace(LEARNED, iterations=3)
    assert several[0].knowledge.alike(several[1].knowledge)
    together = few.together(several, [np.random.default_rng(n) for n in range(2)])
    for number, (one, found) in enumerate(zip(several, together, strict=True)):
        alone = few(one, np.random.default_rng(number))
        assert torch.allclose(alone.images, found.images, atol=1e-4)


def test_without_images_it_is_refused():
    model = initialised(lenet, (1, 8, 8), CLASSES, activation="relu", init="default")
    with pytest.raises(InputError, match=r"learned_prior=0.01: .*this adversary has none"):
        LEARNED(observed(model, DATA, DATA.rows(torch.tensor([0]))), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("key", "value"),
    [("learned_prior", -1), ("prior_images", 1), ("prior_explained", 0), ("prior_explained", 1)],
)
def test_settings_that_make_no_sense_are_refused(key, value):
    with pytest.raises(InputError, match=key):
        dataclasses.replace(ATTACK, **{key: value})


def test_a_study_says_that_the_adversary_has_images(tmp_path):
    few = ["leakage.geiping.attack.iterations=2", "leakage.geiping.exposure.examples=2"]
    run = fedexp.run(
        [
            *("rounds=1", "train_examples=300", "plots=false", "quiet=true", "store=none"),
            *("leakage=geiping", "leakage.geiping.attack.learned_prior=0.01", *few),
            *("leakage.geiping.attack.prior_images=50", f"hydra.run.dir={tmp_path}/run"),
        ]
    )
    said = (run.folder / "leakage" / "geiping" / "findings.json").read_text()
    assert "It has 50 other images of the kind, which nobody trained on." in said
