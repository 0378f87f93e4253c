"""Model inversion: the picture of each class that the model itself likes best.

    minimise over x in [0, 1]:  -l + |l| (tv_weight TV(x) + l2_weight mean(x^2)),   l = logit_c(x)

by Adam from grey with a little noise; several starts, of which the highest logit is kept. TV is
that of an image of side 1 (`image_scores.total_variation`), so that one recipe serves all sizes,
and |l| is held fixed in the gradient, so that it serves all models: logits of 40 after central
training and of 10 with privacy want priors in this proportion, or the comparison measures those.

Source: Fredrikson, Jha and Ristenpart, "Model Inversion Attacks that Exploit Confidence Information
and Basic Countermeasures", CCS 2015, section 5. They descend on 1 - p_c, which saturates; here the
logit takes its place, and smoothness and size are priors of the loss instead of a denoiser.

A picture of a class is not yet a training example. So the study asks three things: does another
classifier recognise the class; how near is the picture to the mean of the training images; and is
it nearer to images trained on than to as many of the same class that were not (the memorisation
gap, 0 where no single image shows through). The interval of the gap is that of a permutation test:
without memorisation, images of a class that were trained on and held out could be swapped.
Resampling pictures instead would forget that all of a class are compared with the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, non_negative, one_of, positive
from fedexp.core.examples import Dataset, Split
from fedexp.core.findings import Figure, Findings
from fedexp.core.flat import FlatModel
from fedexp.core.rng import generator, seed_for, torch_generator
from fedexp.leakage import adversaries
from fedexp.leakage.intervals import (
    Interval,
    mean_interval,
    paired_difference,
    permutation_interval,
)
from fedexp.leakage.model.evaluation_classifier import EvaluationClassifier
from fedexp.leakage.study import Progress, refuse_other_than_images, refuse_several_labels
from fedexp.leakage.updates.baselines import baselines
from fedexp.leakage.updates.image_scores import ssim, ssim_to_each, total_variation
from fedexp.leakage.victim import Victim

Logits = Callable[[Tensor], Tensor]
"""Pixels `[n, C, H, W]` in [0, 1] to logits `[n, classes]`; has a gradient."""

GREY, NOISE = 0.5, 0.1  # the mean and the deviation of the pixels at the start
TARGETS = 50  # pictures in all, where their number is not given
PERMUTATIONS = 1_000
JUDGED = 1_000  # held-out images on which the evaluation classifier's own accuracy is taken
CHUNK = 1_000  # images evaluated at once

INVERSION, UNTRAINED = "inversion", "untrained model"
CONTROLS = ("class mean", "noise", "held-out image")


def invert(
    logits: Logits,
    classes: Tensor,
    shape: Sequence[int],
    *,
    restarts: int,
    steps: int,
    lr: float,
    tv_weight: float,
    l2_weight: float,
    rng: np.random.Generator,
    progress: Progress = lambda share: None,
) -> tuple[Tensor, Tensor]:
    """A picture for each of `classes` `[k]`: images `[k, C, H, W]` and their logits `[k]`.

    A class may be named several times, and gets pictures from different starts. All pictures and
    restarts are one batch; none has any influence on another.

    Args:
        logits: of the model attacked.
        classes: int64 `[k]`.
        shape: (channels, height, width) of an image.
        restarts: random starts a picture; the one with the highest logit is kept.
        steps: of Adam.
        lr: of Adam, in pixel values.
        tv_weight: on the total variation, in units of the logit.
        l2_weight: on the mean squared pixel, in units of the logit.
        rng: draws the starts.
        progress: called with the share of the steps done.
    """
    g = torch_generator(int(rng.integers(2**63)))
    rows = torch.arange(restarts * len(classes))
    wanted = classes.repeat(restarts)
    start = GREY + NOISE * torch.randn(len(rows), *shape, generator=g)
    pixels = start.clamp_(0, 1).requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=lr)
    for step in range(steps):
        logit = logits(pixels)[rows, wanted]
        squares = pixels.square().flatten(1).mean(dim=1)
        priors = tv_weight * total_variation(pixels) + l2_weight * squares
        objective = logit.detach().abs() * priors - logit
        (pixels.grad,) = torch.autograd.grad(objective.sum(), [pixels])
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
        progress((step + 1) / steps)
    with torch.no_grad():
        reached = logits(pixels)[rows, wanted].view(restarts, len(classes))
    best = reached.max(dim=0)
    images = pixels.detach().view(restarts, len(classes), *shape)
    return images[best.indices, torch.arange(len(classes))], best.values


@final
@dataclass(frozen=True)
class ModelInversion:
    """Inverts a run's models and judges the pictures, with controls judged alike.

    Args:
        rounds: the models to invert: "initial", "last" or numbers of rounds that were kept.
        pictures_per_class: pictures judged of every class, each with starts of its own; None takes
            as many as make `TARGETS` in all.
        restarts: random starts a picture.
        steps: of Adam.
        lr: of Adam, in pixel values.
        tv_weight: on the total variation, in units of the logit.
        l2_weight: on the mean squared pixel, in units of the logit.
        compared: images a class that were trained on, and as many held out, with which every
            picture is compared; fewer where there are fewer of either.
    """

    of_a_model_alone: ClassVar[bool] = True

    rounds: Sequence[str | int]
    pictures_per_class: int | None
    restarts: int
    steps: int
    lr: float
    tv_weight: float
    l2_weight: float
    compared: int

    def __post_init__(self) -> None:
        if isinstance(self.rounds, str | int) or not self.rounds:
            raise InputError("must be a list of initial, last or numbers", "rounds", self.rounds)
        for chosen in self.rounds:
            if isinstance(chosen, str):
                one_of(("initial", "last"), rounds=chosen)
            else:
                at_least(0, rounds=chosen)
        if self.pictures_per_class is not None:
            at_least(1, pictures_per_class=self.pictures_per_class)
        at_least(1, restarts=self.restarts, steps=self.steps, compared=self.compared)
        positive(lr=self.lr)
        non_negative(tv_weight=self.tv_weight, l2_weight=self.l2_weight)

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Invert, judge and conclude.

        Raises:
            InputError: a round that was not kept, too few held-out images for a judge, or data
                that are not images of one class each.
        """
        self.check_data(victim.pixels)
        rounds = sorted({_round(victim, chosen) for chosen in self.rounds})
        bench = _Bench.of(victim, self.compared)
        per_class = self.pictures_per_class or math.ceil(TARGETS / len(bench.classes))
        labels = bench.classes.repeat_interleave(per_class)

        models = sorted({0, *rounds})
        inverted: dict[int, Tensor] = {}
        best: dict[int, Tensor] = {}  # of each class the picture with the highest logit
        for done, round in enumerate(models):
            # The same starts for every model: what differs between two pictures is the model.
            images, reached = invert(
                _logits(victim, round),
                labels,
                victim.pixels.input_shape,
                restarts=self.restarts,
                steps=self.steps,
                lr=self.lr,
                tv_weight=self.tv_weight,
                l2_weight=self.l2_weight,
                rng=generator(victim.seed, "model_inversion"),
                progress=_stretch(progress, done / len(models), 1 / len(models)),
            )
            first = torch.arange(len(bench.classes)) * per_class
            inverted[round] = images
            best[round] = images[first + reached.view(-1, per_class).argmax(dim=1)]

        last = rounds[-1]
        without = baselines(bench.baseline, labels, generator(victim.seed, "inversion_baselines"))
        subjects = {(INVERSION, round): inverted[round] for round in rounds}
        subjects |= {(UNTRAINED, 0): inverted[0]}
        subjects |= {(name, last): without[name] for name in CONTROLS}
        verdicts = {subject: bench.judge(images, labels) for subject, images in subjects.items()}
        accuracies = {round: _accuracy(victim, round) for round in models}
        figures = [
            Figure(subject, round, target, metric, value)
            for (subject, round), verdict in verdicts.items()
            for metric, values in verdict.scores.items()
            for target, value in enumerate(values.tolist())
            if not math.isnan(value)
        ]
        figures += [Figure(INVERSION, r, 0, "test_accuracy", accuracies[r]) for r in rounds]
        figures += [Figure(UNTRAINED, 0, 0, "test_accuracy", accuracies[0])]

        found = verdicts[INVERSION, last].intervals
        headline = {metric: interval.mean for metric, interval in found.items()}
        headline |= {f"{metric}_low": interval.low for metric, interval in found.items()}
        headline |= {f"{metric}_high": interval.high for metric, interval in found.items()}
        headline["test_accuracy"] = accuracies[last]
        headline["evaluation_classifier_accuracy"] = bench.accuracy
        more = paired_difference(
            verdicts[INVERSION, last].scores["evaluation_accuracy"],
            verdicts[UNTRAINED, 0].scores["evaluation_accuracy"],
            generator(victim.seed, "inversion_difference"),
        )
        return Findings(
            figures=figures,
            headline=headline,
            arrays={
                "classes": bench.classes.numpy(),
                "inverted": best[last].numpy(),
                "class_mean": bench.class_mean.numpy(),
                "untrained": best[0].numpy(),
            },
            conclusions=_conclusions(verdicts, last, accuracies[last], bench.accuracy, more),
            adversaries={"": adversaries.OUTSIDER},
            adversary=(
                "An outsider with the weights of one model, its architecture and the scale of its "
                "inputs (white box), and the names of the classes. It sees no update, no image "
                "and no label."
            ),
        )

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless the examples are images of one class each."""
        refuse_other_than_images(dataset)
        refuse_several_labels(dataset)


@dataclass(frozen=True)
class _Verdict:
    """How one subject's pictures did."""

    scores: Mapping[str, Tensor]  # metric -> [t] float64; NaN: no image held out of the class
    intervals: Mapping[str, Interval]  # of the metrics that conclusions are drawn from


@dataclass(frozen=True)
class _Bench:
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
    def of(cls, victim: Victim, compared: int) -> _Bench:
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

    def judge(self, images: Tensor, labels: Tensor) -> _Verdict:
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
        return _Verdict(scores | {"memorisation_gap": gaps}, intervals)


def _nearest(near: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The largest of the first k and of the other k similarities `[..., 2k]`: twice `[...]`."""
    first, second = near.split(k, dim=-1)
    return first.amax(dim=-1), second.amax(dim=-1)


def _round(victim: Victim, chosen: str | int) -> int:
    """The number of a round, once it is known that there is a usable model of it."""
    round = victim.round(chosen)
    if not bool(victim.models[round].isfinite().all()):
        raise InputError("the model of this round has weights that are not finite", "rounds", round)
    return round


def _logits(victim: Victim, round: int) -> Logits:
    model = FlatModel(victim.model, torch.device("cpu"))
    model.load(victim.models[round])
    module = model.module.eval().requires_grad_(False)

    def logits(pixels: Tensor) -> Tensor:
        outputs = module(model.laid_out(victim.normalisation.x(pixels)))
        assert isinstance(outputs, Tensor)
        return outputs

    return logits


@torch.no_grad()
def _accuracy(victim: Victim, round: int) -> float:
    """Of the model on the test part."""
    logits, test = _logits(victim, round), victim.pixels.test
    answers = torch.cat([victim.task.predict(logits(part)) for part in test.x.split(CHUNK)])
    return float((answers == test.y).double().mean())


def _stretch(progress: Progress, start: float, share: float) -> Progress:
    """What to call with the share done of a part of the work."""
    return lambda done: progress(start + share * done)


def _conclusions(
    verdicts: Mapping[tuple[str, int], _Verdict],
    last: int,
    test_accuracy: float,
    judge_accuracy: float,
    more: Interval,
) -> list[str]:
    """Sentences made from the figures; `more`: recognised beyond the untrained model's pictures."""
    inverted, untrained = verdicts[INVERSION, last], verdicts[UNTRAINED, 0]
    controls = {name: verdicts[name, last] for name in CONTROLS}
    others = {"the untrained model": untrained} | controls

    def beside(metric: str) -> str:
        return ", ".join(f"{n} {v.intervals[metric].mean:.2f}" for n, v in others.items())

    recognised = inverted.intervals["evaluation_accuracy"]
    targets = len(inverted.scores["evaluation_accuracy"])
    sentences = [
        f"The model of round {last} is right on {test_accuracy:.2f} of the test images. Another "
        f"classifier, itself right on {judge_accuracy:.2f} of held-out images, recognises the "
        f"class in {recognised} of {targets} inverted pictures ({beside('evaluation_accuracy')})."
    ]
    if more.low > 0:
        sentences.append(
            f"That is {more} above the untrained model: the weights show what classes look like."
        )
    elif more.holds(0):
        sentences.append("That is no more than from an untrained model, as far as can be told.")
    else:
        sentences.append(f"That is less than from an untrained model, by {more}.")
    sentences.append(
        f"SSIM to the mean image of the class: {inverted.intervals['ssim_to_class_mean']} "
        f"({beside('ssim_to_class_mean')})."
    )
    sentences.append(_on_memorisation(inverted, controls["held-out image"]))
    sentences.append(
        "These intervals are of one model; models of other seeds may differ by more. Those of the "
        "accuracy and of the SSIM are over pictures, that of the gap over which images of a class "
        "were trained on."
    )
    if targets < TARGETS:
        sentences.append(f"Only {targets} pictures were judged; {TARGETS} are usual.")
    return sentences


def _on_memorisation(inverted: _Verdict, real: _Verdict) -> str:
    """What the gap of the inverted pictures says, beside that of real images held out."""
    gap, control = inverted.intervals["memorisation_gap"], real.intervals["memorisation_gap"]
    nearest, elsewhere = (
        float(verdict.scores["max_ssim_trained_on"].nanmean()) for verdict in (inverted, real)
    )
    measured = (
        f"SSIM to the nearest image trained on is {nearest:.2f} (of real images held out "
        f"{elsewhere:.2f}), which is {gap} above that to the nearest of as many held out"
    )
    if gap.holds(0):
        return f"{measured}: nothing shows that single training examples were recovered."
    if not control.holds(0):
        return (
            f"{measured}, but for real images held out the gap is {control}: the two sets differ, "
            "and it does not show memorisation."
        )
    if gap.low > 0:
        return f"{measured}: something of the examples trained on shows, beyond their class."
    return f"{measured}: nearer to images held out, which memorisation does not explain."
