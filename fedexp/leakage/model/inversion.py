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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from fedexp.core.checks import InputError, at_least, non_negative, one_of, positive
from fedexp.core.examples import Dataset
from fedexp.core.findings import Figure, Findings
from fedexp.core.flat import FlatModel
from fedexp.core.rng import generator, torch_generator
from fedexp.leakage import adversaries
from fedexp.leakage.intervals import paired_difference
from fedexp.leakage.model.bench import Bench
from fedexp.leakage.model.conclusions import CONTROLS, INVERSION, TARGETS, UNTRAINED, conclusions
from fedexp.leakage.study import Progress, refuse_other_than_images, refuse_several_labels
from fedexp.leakage.updates.baselines import baselines
from fedexp.leakage.updates.image_scores import total_variation
from fedexp.leakage.victim import Victim

Logits = Callable[[Tensor], Tensor]
"""Pixels `[n, C, H, W]` in [0, 1] to logits `[n, classes]`; has a gradient."""

GREY, NOISE = 0.5, 0.1  # the mean and the deviation of the pixels at the start
CHUNK = 1_000  # images evaluated at once


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
        bench = Bench.of(victim, self.compared)
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
            conclusions=conclusions(verdicts, last, accuracies[last], bench.accuracy, more),
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
