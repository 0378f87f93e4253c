"""Shadow models: the run again, on other halves of the same pool, so that membership is known.

Shadows come in pairs: the first of a pair trains on a random half of the pool, the second on the
other half. So every example is in exactly half of the models, and still is when a pair is left out.

A shadow is a whole run with the settings of the run that is attacked (federation, rule, privacy,
adversary and all), with a seed of its own: what an outsider would do who knows the algorithm but
not the seed. It is trained by the same round loop and leaves no run folder. Two things differ: it
is not evaluated on the way, and noise that the run drew from the operating system is drawn from the
shadow's seed, so that the same command gives the same findings. It has as many rounds as the run
had, also where that stopped early.

Which half a shadow gets, and its seed, come from the pool and not from the seed of the run that is
attacked: runs of the same settings on the same examples have the same shadows.

Every finished shadow is kept in the run's folder together with a digest of its config and data. A
second attack takes it from there, an interrupted one goes on, and one that belongs to other
settings is trained anew. It is kept in the store as well (`fedexp.store`), by all that decides its
weights, so that no attack on any run trains it again.

Source: Shokri, Stronati, Song and Shmatikov, "Membership Inference Attacks Against Machine Learning
Models", IEEE S&P 2017, section V. Halves of one pool: Carlini et al., IEEE S&P 2022, section 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.files import write_atomically
from fedexp.core.flat import vector_of
from fedexp.core.metric import Metric
from fedexp.core.normalise import normalisation_of
from fedexp.core.parallel import in_parallel
from fedexp.core.protocols import Backend
from fedexp.core.rng import generator, seed_for
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.leakage.membership.answers import finite_logits, phi_of
from fedexp.leakage.membership.pool import Pool
from fedexp.leakage.victim import Victim
from fedexp.run_folder.format import backend_of_studies, config_hash
from fedexp.store.files import leave_file, take_file

FOLDER = "shadows"
FORMAT = "fedexp-shadow-1"


@final
@dataclass(frozen=True)
class Shadow:
    """A model whose training examples are known.

    Attributes:
        params: `[d]` after its last round.
        inside: `[n]` bool, which examples of the pool it was trained on.
    """

    params: Tensor
    inside: np.ndarray


def halves(seed: int, number: int, n: int) -> np.ndarray:
    """Who trains on what: `[number, n]` bool, rows 2k and 2k + 1 each other's complement.

    The first rows do not depend on `number`.

    >>> halves(0, 4, 10).sum(axis=0).tolist()
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    inside = np.zeros((number, n), dtype=bool)
    for first in range(0, number, 2):
        drawn = generator(seed, "shadow_half", first // 2).permutation(n)[: n // 2]
        inside[first, drawn] = True
        inside[first + 1 : first + 2] = ~inside[first]
    return inside


def shadows_of(
    victim: Victim, examples: Split, number: int, done: Callable[[], None]
) -> list[Shadow]:
    """Train `number` shadows on halves of `examples`, or take those that are there already.

    Args:
        victim: the run, whose settings they are trained with.
        examples: the pool, pixels in [0, 1].
        number: how many; of an odd number, the last is without its pair.
        done: told after every one.

    Raises:
        InputError: the run's settings do not allow half of the pool as training part.
    """
    folder = victim.folder / "leakage" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    content = _digest(examples.x.numpy().tobytes(), examples.y.numpy().tobytes())
    inside = halves(_seed_of(content), number, len(examples))
    jobs = [
        _Job.of(victim, examples, index, row, content, folder) for index, row in enumerate(inside)
    ]
    d = len(vector_of(victim.model))
    kept = [_read(job, d) or _from_store(job, d) for job in jobs]
    for shadow in kept:
        if shadow is not None:
            done()
    missing = [job for job, shadow in zip(jobs, kept, strict=True) if shadow is None]
    trained = iter(in_parallel(_train, missing, done))
    for job in missing:
        leave_file("shadow", job.config, job.digest, job.path)
    return [next(trained) if shadow is None else shadow for shadow in kept]


@dataclass(frozen=True)
class _Job:
    """One shadow to train; plain data, so that it can be sent to a process."""

    config: Mapping[str, Any]
    pixels: Dataset
    inside: np.ndarray
    rounds: int  # that the run had
    path: Path
    digest: str  # of all that decides its weights

    @classmethod
    def of(
        cls,
        victim: Victim,
        examples: Split,
        index: int,
        inside: np.ndarray,
        content: str,
        folder: Path,
    ) -> _Job:
        config = _shadow_config(victim.config, seed_for(_seed_of(content), "shadow", index))
        half = examples.rows(torch.from_numpy(np.flatnonzero(inside)))
        rounds = victim.as_it_ran.experiment.rounds
        fewer = () if rounds == config["rounds"] else (f"{rounds} rounds",)
        return cls(
            config=config,
            pixels=replace(victim.pixels, train=half),
            inside=inside,
            rounds=rounds,
            path=folder / f"shadow-{index:03d}.safetensors",
            digest=_digest(
                FORMAT, config_hash(config), content, np.packbits(inside).tobytes(), *fewer
            ),
        )


def _shadow_config(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    shadow = {
        **config,
        "seed": seed,
        "eval_every": config["rounds"],
        "backend": backend_of_studies(config),
        "record_updates": False,
        "leakage": {},
    }
    if "noise_seed" in shadow["privacy"]:
        shadow["privacy"] = {**shadow["privacy"], "noise_seed": "task"}
    return shadow


def _train(job: _Job) -> Shadow:
    built = build(job.config, pixels=job.pixels)
    experiment = replace(built.experiment, rounds=job.rounds, evaluator=_Unevaluated())
    state = initial_state(experiment, vector_of(built.model))
    for after, _ in run_rounds(experiment, state):
        state = after
    experiment.backend.close()
    shadow = Shadow(state.params.cpu(), job.inside)
    tensors = {"params": shadow.params.contiguous(), "inside": torch.from_numpy(job.inside)}
    write_atomically(job.path, safetensors.torch.save(tensors, metadata={"digest": job.digest}))
    return shadow


class _Unevaluated:
    """An evaluator of shadows: nobody asks how accurate they are."""

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        return [], None


def _read(job: _Job, d: int) -> Shadow | None:
    """The shadow kept for this job; None if there is none, or one of other settings."""
    try:
        with safetensors.safe_open(job.path, framework="pt") as file:
            if (file.metadata() or {}).get("digest") != job.digest:
                return None
            params, inside = file.get_tensor("params"), file.get_tensor("inside").numpy()
    except (OSError, safetensors.SafetensorError):
        return None
    if params.shape != (d,) or not np.array_equal(inside, job.inside):
        return None
    return Shadow(params, inside)


def _from_store(job: _Job, d: int) -> Shadow | None:
    """The shadow as another run of the same settings has trained it."""
    return _read(job, d) if take_file("shadow", job.config, job.digest, job.path) else None


def of_idle_clients(pool: Pool, what_follows: str) -> list[str]:
    """What a reader has to know where the run left clients out, as its shadows do."""
    if pool.clear.all():
        return []
    return [
        "A shadow has clients, too, that no round asks or that are malicious; what these hold "
        f"counts as trained on, so {what_follows}."
    ]


def confidence_of(victim: Victim, shadow: Shadow, examples: Split) -> np.ndarray:
    """How sure a shadow is of each example: its phi `[n]` (`true_class_logits`)."""
    return phi_of(logits_of(victim, shadow, examples), examples.y)


def logits_of(victim: Victim, shadow: Shadow, examples: Split) -> Tensor:
    """A shadow's answers `[n, classes]`, its pixels normalised by what it was trained on."""
    half = examples.rows(torch.from_numpy(np.flatnonzero(shadow.inside)))
    params = shadow.params.to(victim.device)
    scale = normalisation_of(victim.config["dataset"], half)
    return finite_logits(victim.model, params, scale, examples)


def _seed_of(content: str) -> int:
    """The seed that belongs to a pool, from the digest of its examples."""
    return int(content[:16], 16)


def _digest(*parts: str | bytes) -> str:
    """SHA-256 of the parts, each one's length included."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "little"))
        whole.update(content)
    return whole.hexdigest()


def refuse_number(number: int) -> None:
    """Raise InputError unless so many shadows give a mean and a deviation of both kinds."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 4 or number % 2:
        raise InputError("must be an even number, 4 or above", "shadows", number)
