"""LFighter: two clusters of what the two busiest output neurons learned; one of them is dropped.

    m_i = sum over k of (||w_{k,i}|| + |b_{k,i}|)         w_{k,i}, b_{k,i}: change of neuron i's
    the two neurons with the largest m are the likely source and target of flipped labels
    c_1, c_2 = k-means of (w_{k,i}, w_{k,j}), the changes of those two neurons' weights
    score_c = |c| / n * mean over k in c of max over l in c of angle(k, l)
    the cluster with the smaller score, the smaller or the denser one, is flagged

Source: Jebreel, Domingo-Ferrer, Sánchez and Blanco-Justicia, "LFighter: Defending against the
Label-flipping Attack in Federated Learning", Neural Networks 170, 2024, arXiv:2207.01982, algorithm
1 with procedure 1; kept rows are averaged (`aggregator=mean`). As in the authors' code, a neuron's
magnitude counts its bias and what is clustered does not. Theirs has 1 - cos in place of the angle,
which the paper prints. Their procedure for clients that hold a single class each ("extreme
non-iid") is left out: the server would have to be told which case it is in.

Somebody is flagged in every round, whether or not anybody attacks, but for rows that are all the
same. A row that is too long for its squares to be counted is flagged at once. Breakdown point: none
is proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.norms import cosines
from fedexp.core.round_model import OutputLayer, RoundModel
from fedexp.core.types import Verdict
from fedexp.detection.acting import check_action, of_marked
from fedexp.detection.k_means import k_means
from fedexp.detection.of_output_layer import OfOutputLayer


@final
@dataclass(frozen=True)
class LFighter(OfOutputLayer):
    """Flags one of two clusters; score 1 for its rows, 0 for the others.

    Args:
        action: what becomes of a flagged row: "drop" or "report" (nothing).
    """

    fewest: ClassVar[int] = 3  # rows: of two, each would be a cluster

    action: Literal["drop", "report"]

    def __post_init__(self) -> None:
        check_action(self.action)

    def judged(
        self, rows: Tensor, counted: Tensor, model: RoundModel, rng: np.random.Generator
    ) -> Verdict:
        """One cluster is kept."""
        kept = counted.clone()
        changes = of_two_neurons(rows, model.output_layer)
        labels = torch.from_numpy(k_means(changes[None].numpy(), 2, rng)[0][0])
        clusters = [labels == 0, labels == 1]
        if all(cluster.any() for cluster in clusters):
            scores = [cluster_score(changes[cluster], len(changes)) for cluster in clusters]
            kept[counted] = clusters[0] if scores[0] >= scores[1] else clusters[1]
        return of_marked(~kept, self.action)


def of_two_neurons(rows: Tensor, layer: OutputLayer) -> Tensor:
    """What the two neurons that changed most learned: `[n, d]` to `[n, 2 * inputs]` float64.

    >>> layer = OutputLayer(weight_at=0, bias_at=3, neurons=3, inputs=1)
    >>> of_two_neurons(torch.tensor([[5.0, 1.0, 7.0, 0.0, 0.0, 0.0]]), layer)
    tensor([[5., 7.]], dtype=torch.float64)
    """
    weights, biases = layer.weights(rows).double().cpu(), layer.biases(rows).double().cpu()
    magnitudes = (weights.norm(dim=2) + biases.abs()).sum(dim=0)
    busiest = magnitudes.argsort(descending=True, stable=True)[:2].sort().values
    return weights[:, busiest].flatten(start_dim=1)


def cluster_score(members: Tensor, n: int) -> float:
    """Share of the `n` rows times the mean of every member's largest angle, in radians.

    >>> cluster_score(torch.eye(2, dtype=torch.float64), 4) / torch.pi
    0.25
    """
    angles = cosines(members @ members.T).arccos().fill_diagonal_(0)
    return len(members) / n * float(angles.max(dim=1).values.mean())
