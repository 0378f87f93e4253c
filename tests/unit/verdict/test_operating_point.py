"""From which probability on somebody is called ill."""

import numpy as np
import pytest

from fedexp.verdict.operating_point import OperatingPoint

TRUTH = np.array([0, 1, 1, 0, 1, 1])


@pytest.mark.parametrize("point", [OperatingPoint("youden"), OperatingPoint("sensitivity", 0.0)])
def test_where_nobody_should_be_called_ill_nobody_is(point):
    """Of a saturated model that is wrong: of the ill nobody, of the healthy all, have 1."""
    ill = np.array([1.0, 0.0, 0.0, 1.0, 0.2, 0.1])
    assert not (ill >= point.threshold(TRUTH, ill)).any()


@pytest.mark.parametrize("seed", range(5))
def test_youdens_index_is_the_largest_there_is(seed):
    rng = np.random.default_rng(seed)
    ill = np.round(rng.random(6), 1)

    def index(threshold):
        found = ill >= threshold
        return found[TRUTH == 1].mean() - found[TRUTH == 0].mean()

    best = max(index(threshold) for threshold in [*ill, 2.0])
    assert index(OperatingPoint("youden").threshold(TRUTH, ill)) == pytest.approx(best)
