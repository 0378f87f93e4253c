"""Do updates give back the examples that they were made of? The study around an update attack.

Examples of the run are exposed (`exposure.py`), each update is attacked on its own, and what comes
back is matched with the truth one to one and scored beside what needs no attack: the class mean,
the mean image, noise, the prior alone. An update leaks images as far as the attack does better
than the best of those, not as far as its PSNR is large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.capabilities import ChecksTheModel
from fedexp.core.examples import Dataset
from fedexp.core.findings import Figure, Findings
from fedexp.core.parallel import in_parallel
from fedexp.core.protocols import Task
from fedexp.core.rng import generator
from fedexp.leakage import adversaries
from fedexp.leakage.intervals import Interval, mean_interval, paired_difference
from fedexp.leakage.observation import (
    LearnsFromImages,
    Observation,
    Reconstruction,
    TakesSeveral,
    UpdateAttack,
)
from fedexp.leakage.study import Progress, refuse_other_than_images, refuse_several_labels
from fedexp.leakage.updates.baselines import CLASS_MEAN, baselines
from fedexp.leakage.updates.exposure import Exposed, Exposing
from fedexp.leakage.updates.image_scores import (
    arranged,
    identified,
    label_recovery,
    matched,
    mse,
    psnr_db,
    ssim,
)
from fedexp.leakage.victim import Victim

FOUND = "reconstruction"
RECONSTRUCTED = 1e-2  # the mean squared error below which an image counts as reconstructed
LOOKALIKES = 99  # held-out images of the class, among which the true one is to be singled out
SHOWN = 16  # pictures of a round that are kept


@final
@dataclass(frozen=True)
class UpdateInversion:
    """Exposes examples, attacks every update, scores what comes back.

    Args:
        exposure: which examples the server sees updates of, and how.
        attack: what is done with each update.
    """

    exposure: Exposing
    attack: UpdateAttack

    def __call__(self, victim: Victim, progress: Progress) -> Findings:
        """Scores of every exposed image, for every round asked for.

        Raises:
            InputError: the run's updates, its data or its model, cannot be attacked so.
        """
        self.check_data(victim.pixels)
        exposed = self.exposure(victim)
        observations = self._told([e.observation for e in exposed], victim)
        jobs = [
            _Job(self.attack, [observations[n] for n in numbers], victim.seed, numbers)
            for numbers in _blocks(self.attack, observations)
        ]
        finished = 0

        def done() -> None:
            nonlocal finished
            finished += 1
            progress(finished / len(jobs))

        # On a GPU one block after the other: it has no cores to be shared.
        workers = None if victim.device.type == "cpu" else 1
        found = in_parallel(_attack, jobs, done, workers)
        guesses = [guess for of_job in found for guess in of_job]
        rounds = list(dict.fromkeys(e.round for e in exposed))
        judged = [
            self._judge(
                [(e, g) for e, g in zip(exposed, guesses, strict=True) if e.round == round],
                round,
                victim,
            )
            for round in rounds
        ]
        shown = [len(of_round.truth[:SHOWN]) for of_round in judged]
        return Findings(
            figures=[figure for of_round in judged for figure in of_round.figures()],
            headline={
                f"{metric}_at_round_{of_round.round}" if len(rounds) > 1 else metric: value
                for of_round in judged
                for metric, value in of_round.headline().items()
            },
            arrays={
                "targets": torch.cat([j.truth[:SHOWN] for j in judged]).numpy(),
                "reconstructions": torch.cat([j.found[:SHOWN] for j in judged]).numpy(),
                "psnr_db": np.concatenate([j.scores[FOUND]["psnr_db"][:SHOWN] for j in judged]),
                "round": np.repeat(rounds, shown),
            },
            conclusions=[of_round.conclusion() for of_round in judged],
            adversary=self._adversary(observations[0]),
            adversaries={"": adversaries.server_of(victim)},
        )

    def _told(self, observations: Sequence[Observation], victim: Victim) -> list[Observation]:
        """On the run's device, with the images that the attack asks for: held out, of its kind."""
        there = [observation.to(victim.device) for observation in observations]
        wanted = self.attack.images_wanted if isinstance(self.attack, LearnsFromImages) else 0
        if not wanted:
            return there
        held_out = victim.held_out.x
        order = generator(victim.seed, "images of the kind").permutation(len(held_out))[:wanted]
        images = held_out[torch.from_numpy(order)].to(victim.device)
        return [replace(o, knowledge=replace(o.knowledge, images=images)) for o in there]

    def check_model(self, model: nn.Module, task: Task, x: Tensor, y: Tensor) -> None:
        """Raise InputError for a model that the attack cannot work on."""
        if isinstance(self.attack, ChecksTheModel):
            self.attack.check_model(model, task, x, y)

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless the examples are images of one class each."""
        refuse_other_than_images(dataset)
        refuse_several_labels(dataset)

    def _judge(
        self, pairs: Sequence[tuple[Exposed, Reconstruction]], round: int, victim: Victim
    ) -> _Judged:
        truth = torch.cat([exposed.truth.x for exposed, _ in pairs])
        labels = torch.cat([exposed.truth.y for exposed, _ in pairs])
        rng = generator(victim.seed, "baselines", round)
        found = torch.cat([arranged(g.images, matched(g.images, e.truth.x)) for e, g in pairs])
        held_out = victim.held_out
        subjects = {FOUND: found, **baselines(held_out, labels, rng)}
        alike = {y: held_out.x[held_out.y == y][:LOOKALIKES] for y in set(labels.tolist())}
        others = [alike[y] for y in labels.tolist()]
        return _Judged(
            round=round,
            truth=truth,
            found=found,
            scores={name: _scores(images, truth, others) for name, images in subjects.items()},
            recovered=np.array([label_recovery(g.labels, e.truth.y) for e, g in pairs]),
            observations=np.repeat(np.arange(len(pairs)), [len(e.truth) for e, _ in pairs]),
            seed=victim.seed,
        )

    def _adversary(self, observation: Observation) -> str:
        known, sums = observation.knowledge, observation.clients
        sees = (
            f"only the mean of {sums} clients' updates (secure aggregation)"
            if sums > 1
            else "every client's update"
        )
        labels = "the labels" if known.labels is not None else "no labels"
        images = (
            ""
            if known.images is None
            else f" It has {len(known.images)} other images of the kind, which nobody trained on."
        )
        clipping = (
            ""
            if known.clip_norm is None
            else f", that gradients are clipped to {known.clip_norm:g}"
        )
        if observation.seen is not None:
            share = float(observation.seen.double().mean())
            sees += f", {100 * share:.3g} % of its numbers (compressed, and it knows which)"
        steps = (
            f"{known.local_steps} full-batch step(s) on {known.batch_size // sums} example(s)"
            if known.minibatch is None
            else f"{known.local_steps} steps on minibatches of {known.minibatch} of "
            f"{known.batch_size} examples, which it does not know"
        )
        return (
            f"An honest-but-curious server. It sees {sees}, and knows the model sent out, the "
            f"{known.rule}, that a client took {steps}{clipping}, how pixels are "
            f"normalised, and {labels}.{images} {self.exposure.about}"
        )


@dataclass(frozen=True)
class _Judged:
    """What came back at one round, image by image, beside the baselines."""

    round: int
    truth: Tensor  # [n, C, H, W]
    found: Tensor  # [n, C, H, W]
    scores: Mapping[str, Mapping[str, np.ndarray]]  # subject -> metric -> [n]
    recovered: np.ndarray  # [observations] share of the labels
    observations: np.ndarray  # [n] which update or sum each image was in
    seed: int

    def figures(self) -> list[Figure]:
        of_images = [
            Figure(subject, self.round, target, metric, float(value))
            for subject, of_subject in self.scores.items()
            for metric, values in of_subject.items()
            for target, value in enumerate(values)
            if not math.isnan(value)
        ]
        of_labels = [
            Figure(FOUND, self.round, target, "labels_recovered", float(value))
            for target, value in enumerate(self.recovered)
        ]
        return [*of_images, *of_labels]

    def headline(self) -> dict[str, float]:
        of_images = self.scores[FOUND].items()
        intervals = {metric: self._interval(values) for metric, values in of_images}
        intervals["labels_recovered"] = mean_interval(self.recovered, self._rng())
        headline: dict[str, float] = {}
        for metric, (mean, low, high) in intervals.items():
            headline |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
        headline["best_baseline_psnr_db"] = float(self.scores[self._best()]["psnr_db"].mean())
        return headline

    def _interval(self, values: np.ndarray) -> Interval:
        known = ~np.isnan(values)
        if not known.any():
            return Interval(math.nan, math.nan, math.nan)
        return mean_interval(values[known], self._rng(), observations=self.observations[known])

    def conclusion(self) -> str:
        best = self._best()
        ours, theirs = self.scores[FOUND]["psnr_db"], self.scores[best]["psnr_db"]
        gain, low, high = paired_difference(
            ours, theirs, self._rng(), observations=self.observations
        )
        about = (
            f"Round {self.round}: {ours.mean():.1f} dB over {len(ours)} images, "
            f"{theirs.mean():.1f} dB by the best guess without the update ({best}): difference "
            f"{gain:+.1f} dB"
        )
        if math.isnan(low):
            verdict = "of one observation alone, which says nothing of the next one"
        else:
            about += f" [{low:+.1f}, {high:+.1f}]"
            verdict = self._verdict(low)
        return (
            f"{about}; {verdict}. {self._singled_out(best)} "
            f"Labels recovered: {self.recovered.mean():.0%}."
        )

    def _verdict(self, low: float) -> str:
        """In words, from the lower end of the gain over guesses."""
        if low > 0:
            seen, mean = (self.scores[n]["reconstructed"].mean() for n in (FOUND, CLASS_MEAN))
            return (
                f"the updates leak images; {seen:.0%} are reconstructed (MSE below 0.01), as "
                f"{mean:.0%} are by the mean of their class"
            )
        return "by their errors, the images are no better than guesses"

    def _singled_out(self, best: str) -> str:
        known = ~np.isnan(self.scores[FOUND]["identified"])
        if not known.any():
            return "No other image of their classes is held out for which they could be taken."
        ours, theirs = (self.scores[n]["identified"][known].mean() for n in (FOUND, best))
        return (
            f"{ours:.0%} single out their own image among up to {LOOKALIKES + 1} of the class, "
            f"{theirs:.0%} of the {best}s do."
        )

    def _best(self) -> str:
        """The best guess without the update; ties go to the first."""
        guesses = [name for name in self.scores if name != FOUND]
        return max(guesses, key=lambda name: float(self.scores[name]["psnr_db"].mean()))

    def _rng(self) -> np.random.Generator:
        return generator(self.seed, "intervals", self.round)


@dataclass(frozen=True)
class _Job:
    """Observations to attack at once, with all that a worker process needs."""

    attack: UpdateAttack
    observations: Sequence[Observation]
    seed: int
    numbers: range  # of the observations among all, which key their streams


def _blocks(attack: UpdateAttack, observations: Sequence[Observation]) -> list[range]:
    """The numbers of observations, in order, cut into what the attack takes at once."""
    blocks: list[range] = []
    most = 0  # in the last block: to ask costs a pass through the model
    for number, observation in enumerate(observations):
        known = observation.knowledge
        if (
            blocks
            and len(blocks[-1]) < most
            and observations[blocks[-1].start].knowledge.alike(known)
        ):
            blocks[-1] = range(blocks[-1].start, number + 1)
        else:
            blocks.append(range(number, number + 1))
            most = attack.at_once(known) if isinstance(attack, TakesSeveral) else 1
    return blocks


def _attack(job: _Job) -> list[Reconstruction]:
    rngs = [generator(job.seed, "inversion", number) for number in job.numbers]
    if isinstance(job.attack, TakesSeveral):
        found = job.attack.together(job.observations, rngs)
    else:
        found = [job.attack(one, rng) for one, rng in zip(job.observations, rngs, strict=True)]
    return [guess.cpu() for guess in found]


def _scores(images: Tensor, truth: Tensor, others: Sequence[Tensor]) -> dict[str, np.ndarray]:
    errors = mse(images, truth)
    scores = {
        "psnr_db": psnr_db(images, truth),
        "ssim": ssim(images, truth),
        "mse": errors,
        "reconstructed": (errors < RECONSTRUCTED).double(),
        "identified": identified(images, truth, others),
    }
    return {metric: values.numpy() for metric, values in scores.items()}
