"""DeepSight: what the output layer and the answers tell of a client's data, clustered; who is poor.

    E_i = |b_i| + sum over h of |w_ih|          change of output neuron i; P neurons
    NEUP_i = E_i^2 / sum over j of E_j^2        normalised update energies
    TE = how many NEUP_i exceed max(0.01, 1 / P) max NEUP      threshold exceedings
    a row is suspicious if TE <= median TE / 2: its data were of few labels
    DDif_i = mean over random inputs x of p_k(x)_i / p_global(x)_i        for each of 3 draws of x
    HDBSCAN on cosine distances of the b, on NEUPs and on the DDifs of each draw; then on the mean
    of the three, 0 where two rows share a cluster and 1 elsewhere (DDifs: the mean over the draws)
    score = the suspicious share of a row's final cluster; flagged from a third on

Source: Rieger, Nguyen, Miettinen and Sadeghi, "DeepSight: Mitigating Backdoor Attacks in Federated
Learning Through Deep Model Inspection", NDSS 2022, algorithms 1 to 3. What is kept the paper clips
to the median length of all rows and averages: `aggregator=norm_bounding`, whose median is of those
kept. The paper leaves open, and this is how it is settled: HDBSCAN is scikit-learn's, with clusters
of 2 rows and more; a row that it calls noise is a cluster of its own, in all of them; inputs are
uniform with mean 0 and deviation 1, which examples have that were standardised, in place of pixels,
2,000 where the paper has 20,000, and drawn anew in every round; a row that leaves the output layer
as it is has equal energies. A row that is too long for its squares to be counted has score 1.
Breakdown point: none is proven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import at_least, in_range
from fedexp.core.norms import cosines
from fedexp.core.round_model import OutputLayer, RoundModel, uniform_inputs
from fedexp.core.types import Verdict
from fedexp.detection.acting import check_action, verdict
from fedexp.detection.of_output_layer import OfOutputLayer

LEAST_SHARE = 0.01  # of the largest energy, that an exceeding has to exceed
LEAST = 1e-30  # a probability to divide by


@final
@dataclass(frozen=True)
class DeepSight(OfOutputLayer):
    """Flags the clusters of rows in which many are suspicious.

    Args:
        samples: random inputs that the models answer to, in each draw.
        draws: of such inputs; 3 in the paper.
        min_cluster_size: of HDBSCAN, in rows; at least 2.
        suspicious_share: tau: clusters with a larger share of suspicious rows are flagged.
        action: what becomes of a flagged row: "drop" or "report" (nothing).
    """

    fewest: ClassVar[int] = 4  # rows: among fewer there are no clusters

    samples: int
    draws: int
    min_cluster_size: int
    suspicious_share: float
    action: Literal["drop", "report"]

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples, draws=self.draws)
        at_least(2, min_cluster_size=self.min_cluster_size)
        in_range(0, 1, suspicious_share=self.suspicious_share)
        check_action(self.action)

    def judged(
        self, rows: Tensor, counted: Tensor, model: RoundModel, rng: np.random.Generator
    ) -> Verdict:
        """By the suspicious share of a row's cluster."""
        scores = torch.ones(len(counted), dtype=torch.float64)
        scores[counted] = self._shares(rows, model, rng)
        return verdict(scores, self.suspicious_share, self.action)

    def _shares(self, rows: Tensor, model: RoundModel, rng: np.random.Generator) -> Tensor:
        """The suspicious share of each row's cluster: `[n]`."""
        layer = model.output_layer
        # Ties among distances must not depend on the order of the clients.
        order = np.lexsort(normalised_energies(rows, layer).numpy().T)
        rows = rows[torch.from_numpy(order).to(rows.device)]
        energies, biases = normalised_energies(rows, layer), layer.biases(rows).double().cpu()
        views = [1 - cosines(biases @ biases.T), torch.cdist(energies, energies)]
        found = [self._apart(view) for view in views]
        by_answers = [torch.cdist(d, d) for d in self._division_differences(rows, model, rng)]
        found.append(torch.stack([self._apart(view) for view in by_answers]).mean(dim=0))
        together = self._apart(torch.stack(found).mean(dim=0)) == 0
        marks = suspicious(energies).double()
        shares = torch.empty(len(rows), dtype=torch.float64)
        shares[torch.from_numpy(order)] = together.double() @ marks / together.sum(dim=1)
        return shares

    def _apart(self, distances: Tensor) -> Tensor:
        """0 where two rows share a cluster, 1 elsewhere: `[n, n]` to `[n, n]` float64."""
        from sklearn.cluster import HDBSCAN

        clustering = HDBSCAN(
            metric="precomputed", min_cluster_size=self.min_cluster_size, copy=True
        )
        apart = distances.clone().fill_diagonal_(0).clamp_min(0)
        labels = torch.from_numpy(clustering.fit_predict(apart.numpy()))
        alone = -1 - torch.arange(len(labels))
        labels = torch.where(labels < 0, alone, labels)
        return (labels[:, None] != labels[None, :]).double()

    def _division_differences(
        self, rows: Tensor, model: RoundModel, rng: np.random.Generator
    ) -> list[Tensor]:
        """DDifs `[n, P]` float64 of the rows, for every draw of inputs."""
        found = []
        for _ in range(self.draws):
            drawn = rng.random((self.samples, *model.input_shape), dtype=np.float32)
            vectors = [model.params, *(model.params + row for row in rows)]
            answers = model.probabilities(vectors, uniform_inputs(torch.from_numpy(drawn)))
            shared = next(answers).double().clamp_min(LEAST)
            ratios = [(own.double() / shared).mean(dim=0) for own in answers]
            found.append(torch.stack(ratios).nan_to_num(0, 0, 0).cpu())
        return found


def normalised_energies(rows: Tensor, layer: OutputLayer) -> Tensor:
    """NEUPs of the rows `[n, d]`: `[n, P]` float64, on the CPU.

    >>> layer = OutputLayer(weight_at=0, bias_at=2, neurons=2, inputs=1)
    >>> normalised_energies(torch.tensor([[3.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]), layer)
    tensor([[0.9000, 0.1000],
            [0.5000, 0.5000]], dtype=torch.float64)
    """
    weights, biases = layer.weights(rows).double(), layer.biases(rows).double()
    squares = (biases.abs() + weights.abs().sum(dim=2)).square()
    total = squares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, squares / total, 1 / layer.neurons).cpu()


def suspicious(energies: Tensor) -> Tensor:
    """Whose exceedings are at most half of the median's: NEUPs `[n, P]` to `[n]` bool.

    >>> even, one = [0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.01, 0.01]
    >>> suspicious(torch.tensor([even, even, one]))
    tensor([False, False,  True])
    """
    share = max(LEAST_SHARE, 1 / energies.shape[1])
    limits = share * energies.max(dim=1, keepdim=True).values
    exceedings = (energies > limits).sum(dim=1).double()
    return exceedings <= exceedings.quantile(0.5) / 2
