"""RFLBAT against a loop typed from algorithm 1 of Wang et al. 2022."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.types import Updates
from fedexp.detection.gap_statistic import number_of_clusters
from fedexp.detection.k_means import k_means
from fedexp.detection.rflbat import RFLBAT, principal

D = 60


def detector(**changes):
    given = {"components": 2, "far": 10.0, "near": 4.0, "most_clusters": 5, "references": 5}
    return RFLBAT(**{**given, "action": "drop", **changes})


def rows(matrix):
    return Updates(matrix, tuple(range(len(matrix))), torch.ones(len(matrix), dtype=torch.float64))


def cohort(seed, n=14, backdoored=4):
    """Honest rows share a part; those that backdoor share another one, and are more alike."""
    g = torch.Generator().manual_seed(seed)
    shared, trigger = torch.randn(D, generator=g), torch.randn(D, generator=g)
    matrix = shared + torch.randn(n, D, generator=g)
    alike = shared + 3 * trigger + 0.2 * torch.randn(backdoored, D, generator=g)
    matrix[:backdoored] = alike
    return matrix


def naive(matrix, far, near, rng, most_clusters=5, references=5):
    """The rows that are kept."""
    points = PCA(2).fit_transform(matrix.double().numpy())

    def sums(indices):
        return [sum(np.linalg.norm(points[i] - points[j]) for j in indices) for i in indices]

    accepted = list(range(len(points)))
    distances = sums(accepted)
    accepted = [i for i in accepted if distances[i] <= far * np.median(distances)]
    # The components as ours point; their signs mean nothing, and the random draws heed them.
    signs = np.sign((points**3).sum(axis=0))
    x = (points * signs)[accepted]
    k = number_of_clusters(x, most_clusters, references, rng)
    labels = k_means(x[None], k, rng)[0][0]
    values = []
    for c in range(k):
        members = [accepted[i] for i in range(len(accepted)) if labels[i] == c]
        units = [matrix[m].double() / matrix[m].double().norm() for m in members]
        means = [float(np.mean([float(a @ b) for b in units])) for a in units]
        values.append(1.0 if len(members) < 2 else float(np.median(means)))
    best = int(np.argmin(values))
    accepted = [accepted[i] for i in range(len(accepted)) if labels[i] == best]
    distances = sums(accepted)
    return [i for i, s in zip(accepted, distances, strict=True) if s <= near * np.median(distances)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("far", "near"), [(10.0, 4.0), (1.5, 1.2)])
def test_the_rows_that_are_kept_are_the_papers(seed, far, near):
    matrix = cohort(seed)
    verdict, state = detector(far=far, near=near)(rows(matrix), {}, generator(seed, "test"))
    kept = naive(matrix, far, near, generator(seed, "test"))
    assert [i for i in range(len(matrix)) if verdict.trust[i] == 1] == kept
    assert verdict.flagged.tolist() == [i not in kept for i in range(len(matrix))]
    assert state == {}


def test_who_backdoors_alike_is_dropped():
    verdict, _ = detector()(rows(cohort(0)), {}, generator(0, "test"))
    assert verdict.flagged[:4].all()
    assert not verdict.flagged[4:].all()  # one cluster of the honest ones is kept


def test_one_row_far_off_is_dropped_by_the_first_filter_alone():
    matrix = torch.randn(20, D, generator=torch.Generator().manual_seed(0))
    matrix[7] *= 1000
    verdict, _ = detector(most_clusters=1)(rows(matrix), {}, generator(0, "test"))
    assert verdict.flagged.nonzero().flatten().tolist() == [7]


def test_the_plane_is_that_of_scikit_learn():
    matrix = cohort(1)
    ours, its = principal(matrix, 2).numpy(), PCA(2).fit_transform(matrix.double().numpy())
    np.testing.assert_allclose(np.abs(ours), np.abs(its), rtol=1e-3, atol=1e-3)


def test_a_report_takes_nobodys_weight():
    verdict, _ = detector(action="report")(rows(cohort(0)), {}, generator(0, "test"))
    assert verdict.flagged.any()
    assert (verdict.trust == 1).all()


def test_of_three_rows_nothing_is_said():
    verdict, _ = detector()(rows(cohort(0)[:3]), {}, generator(0, "test"))
    assert verdict.scores.isnan().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"components": 0},
        {"far": 0},
        {"far": 1e-300},
        {"near": 0.9},
        {"near": -1.0},
        {"most_clusters": 0},
        {"references": 0},
        {"action": "down_weight"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        detector(**wrong)
