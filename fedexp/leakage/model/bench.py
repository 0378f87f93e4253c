"""What judges pictures that are meant to show a class, whoever made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedexp.core.examples import Split
from fedexp.core.rng import generator, seed_for
from fedexp.leakage.intervals import Interval, mean_interval, permutation_interval
from fedexp.leakage.model.evaluation_classifier import EvaluationClassifier
from fedexp.leakage.updates.image_scores import ssim, ssim_to_each
from fedexp.leakage.victim import Victim

PERMUTATIONS = 1_000
JUDGED = 1_000  # held-out images on which the evaluation classifier's own accuracy is taken


@dataclass(frozen=True)
class Verdict:
    """How one subject's pictures did."""

    scores: Mapping[str, Tensor]  # metric -> [t] float64; NaN: no image held out of the class
    intervals: Mapping[str, Interval]  # of the metrics that conclusions are drawn from


@dataclass(frozen=True)
class Bench:
    """What judges pictures.

    Of every class, a half of the held-out images fits the classifier, a quarter gives the
    baselines, and the rest is what pictures are compared with.
    """

    seed: int
    classes: Tensor  # [c] int64: those that were trained on
    class_mean: Tensor  # [c, C, H, W] of the images trained on
    baseline: Split
    pairs: Mapping[int, tuple[Tensor, Tensor]]  # class -> as many images trained on as held out
    classifier: EvaluationClassifier
    accuracy: float  # the classifier's own, on held-out images that it was not fitted to

    @classmethod
    def of(cls, victim: Victim, compared: int) -> Bench:
        """From what a victim trained on and what it held out, `compared` images a class of each."""
        rng = generator(victim.seed, "inversion_bench")
        rows = np.sort(np.concatenate(victim.partition.shards))
        trained = victim.pixels.train.rows(torch.from_numpy(rows))
        held_out, classes = victim.held_out, trained.y.unique()
        parts: list[list[np.ndarray]] = []
        pairs = {}
        for label in classes.tolist():
            own = rng.permutation(np.flatnonzero(trained.y.numpy() == label))
            others = rng.permutation(np.flatnonzero(held_out.y.numpy() == label))
            half, quarter = len(others) // 2, len(others) // 4
            parts.append(np.split(others, [half, half + quarter]))
            k = min(compared, len(own), len(parts[-1][-1]))
            pairs[label] = trained.x[own[:k]], held_out.x[parts[-1][-1][:k]]
        fitted, baseline, rest = (
            held_out.rows(torch.from_numpy(np.concatenate(part)))
            for part in zip(*parts, strict=True)
        )
        seed = seed_for(victim.seed, "evaluation_classifier")
        classifier = EvaluationClassifier.fit(fitted, victim.pixels.num_classes, seed)
        unseen = rest.rows(torch.from_numpy(rng.permutation(len(rest))[:JUDGED]))
        return cls(
            seed=victim.seed,
            classes=classes,
            class_mean=torch.stack([trained.x[trained.y == c].mean(dim=0) for c in classes]),
            baseline=baseline,
            pairs=pairs,
            classifier=classifier,
            accuracy=classifier.accuracy(unseen),
        )

    def judge(self, images: Tensor, labels: Tensor) -> Verdict:
        """All metrics of pictures `[t, C, H, W]` meant to show `labels` `[t]`."""
        rng = generator(self.seed, "inversion_intervals")
        means = self.class_mean[torch.searchsorted(self.classes, labels)]
        scores = {
            "evaluation_accuracy": (self.classifier.predict(images) == labels).double(),
            "ssim_to_class_mean": ssim(images, means),
        }
        intervals = {metric: mean_interval(values, rng) for metric, values in scores.items()}

        seen, unseen = (torch.full((len(images),), torch.nan).double() for _ in range(2))
        swapped = []  # [pictures, permutations] gaps, class by class
        for label, pair in self.pairs.items():
            own, k = labels == label, len(pair[0])
            if not k:
                continue
            near = ssim_to_each(images[own], torch.cat(pair))  # [pictures, 2k]
            seen[own], unseen[own] = _nearest(near, k)
            # The same permutations for every subject, so that their intervals can be compared.
            rng = generator(self.seed, "inversion_swaps", label)
            order = rng.permuted(np.tile(np.arange(2 * k), (PERMUTATIONS, 1)), axis=1)
            first, second = _nearest(near[:, torch.from_numpy(order)], k)
            swapped.append(first - second)
        gaps = seen - unseen
        null = torch.cat(swapped).mean(dim=0)
        intervals["memorisation_gap"] = permutation_interval(float(gaps.nanmean()), null)
        scores |= {"max_ssim_trained_on": seen, "max_ssim_held_out": unseen}
        return Verdict(scores | {"memorisation_gap": gaps}, intervals)


def _nearest(near: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest of the first k and of the other k similarities `[..., 2k]`: twice `[...]`."""
    first, second = near.split(k, dim=-1)
    return first.amax(dim=-1), second.amax(dim=-1)
