"""Honest rounds, and the scorers that every test of detectors tries."""

import pytest
import torch

from fedexp.detection.autoencoder import Autoencoder
from fedexp.detection.features import RELATIONS, RESIDUAL
from fedexp.detection.norm import Norm
from fedexp.detection.pca import PCA
from tests.support.updates import updates

P = RELATIONS + RESIDUAL
AUTOENCODER = Autoencoder(sketch_size=64, hidden=16, bottleneck=2, epochs=60, lr=0.01)
SCORERS_TO_TRY = [AUTOENCODER, Norm(), PCA(sketch_size=64, components=2)]
each_scorer = pytest.mark.parametrize("scorer", SCORERS_TO_TRY, ids=lambda s: type(s).__name__)


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def honest_round(round, n=20, d=400):
    """Half in common, half a client's own; shrinking, and with directions that stay."""
    shared, own = rows(1, d, seed=1), rows(n, d, seed=2)
    matrix = (shared + own + 0.5 * rows(n, d, seed=100 + round)) * 0.8**round
    return updates(matrix)
