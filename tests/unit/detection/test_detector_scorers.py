"""Scorers by hand, against scikit-learn, and on what they have to learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Decomposition

from fedexp.core.checks import InputError
from fedexp.detection.features import (
    RELATIONS,
    standardisation,
)
from fedexp.detection.norm import Norm
from fedexp.detection.pca import PCA
from tests.support.detecting import AUTOENCODER, P, each_scorer, rows


def test_norm_by_hand():
    features = torch.zeros(5, P)
    features[:, 0] = torch.tensor([1.0, 2, 3, 4, 100])
    fitted = Norm().fit(features, 0)
    assert float(fitted["median"]) == 3
    scores = Norm().score(features, fitted)
    expected = torch.tensor([2.0, 1, 0, 1, 97], dtype=torch.float64) / 1.4826
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=0)


def test_pca_against_sklearn():
    features = rows(60, P) @ torch.diag(torch.linspace(1, 3, P)) + 5
    scorer = PCA(sketch_size=64, components=3)
    mean, deviation = standardisation(features)
    x = ((features - mean) / deviation).double().numpy()
    theirs = Decomposition(3).fit(x)
    expected = ((x - theirs.inverse_transform(theirs.transform(x))) ** 2).sum(axis=1)
    found = scorer.score(features, scorer.fit(features, 0)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_rest_of_the_vector_weighs_as_much_as_one_relation():
    features = rows(500, P)
    mean, deviation = standardisation(features)
    squares = ((features - mean) / deviation).square().mean(dim=0)
    torch.testing.assert_close(squares[:RELATIONS], torch.ones(RELATIONS))
    torch.testing.assert_close(squares[RELATIONS:].sum(), torch.tensor(1.0))


def test_the_autoencoder_learns_to_reproduce():
    g = torch.Generator().manual_seed(0)
    curve = torch.rand(300, 1, generator=g) * 2 - 1
    features = torch.cat([curve, curve**2, -curve, curve**3], 1).repeat(1, P // 4)
    untrained = replace(AUTOENCODER, epochs=1)
    trained = replace(AUTOENCODER, epochs=300)
    before = untrained.score(features, untrained.fit(features, 0)).mean()
    fitted = trained.fit(features, 0)
    honest = trained.score(features, fitted)
    assert honest.mean() < before / 10
    off_the_curve = features.clone()
    off_the_curve[:, 2] *= -1  # each number by itself is usual
    moved = curve.flatten().abs() > 0.5
    assert (trained.score(off_the_curve, fitted)[moved] > honest.quantile(0.99)).all()


@each_scorer
def test_a_fit_is_the_same_for_the_same_seed_and_leaves_the_global_generator(scorer):
    features = rows(40, P)
    state = torch.get_rng_state()
    a, b = scorer.fit(features, 1), scorer.fit(features, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert {name: tuple(t.shape) for name, t in a.items()} == dict(scorer.shapes(P))


def test_settings_that_make_no_scorer_are_refused():
    with pytest.raises(InputError, match="bottleneck=0"):
        replace(AUTOENCODER, bottleneck=0)
    with pytest.raises(InputError, match="sketch_size=0"):
        PCA(sketch_size=0, components=2)
    with pytest.raises(InputError, match="components=0"):
        PCA(sketch_size=None, components=0)
