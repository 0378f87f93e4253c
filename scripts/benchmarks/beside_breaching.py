"""Inverting gradients beside breaching, on the same gradients of single images, in turns.

    PYTHONPATH=.:scripts python -m benchmarks.beside_breaching       32 images, 300 iterations
    PYTHONPATH=.:scripts python -m benchmarks.beside_breaching --only lenet_relu --images 8

Both are told the label and start from noise; breaching's attack is `invertinggradients` with its
own defaults, but for the iterations and a total variation made fit for one channel. One core each.
Needs breaching (`pip install breaching`) and MNIST in FEDEXP_DATA_DIR.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import breaching
import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.normalise import Normalisation
from fedexp.core.step_rule import StepRule
from fedexp.data.mnist import IDXImages
from fedexp.leakage.observation import Knowledge, Observation
from fedexp.leakage.updates.expected_update import expected_gradient
from fedexp.leakage.updates.geiping import Geiping
from fedexp.leakage.updates.image_scores import psnr_db
from fedexp.models import cnn, lenet, mlp
from fedexp.tasks.multiclass import Multiclass

SHAPE, CLASSES, LR = (1, 28, 28), 10, 0.1
MODELS: dict[str, Callable[[], nn.Module]] = {
    "2nn": lambda: mlp(SHAPE, CLASSES, [200, 200]),
    "lenet_sigmoid": lambda: lenet(SHAPE, CLASSES, activation="sigmoid", init="default"),
    "lenet_relu": lambda: lenet(SHAPE, CLASSES, activation="relu", init="default"),
    "cnn": lambda: cnn(SHAPE, CLASSES),
}


def observed(module: nn.Module, data: Split, image: Split) -> Observation:
    """One step of SGD on one image, its label told."""
    knowledge = Knowledge(
        module=module,
        params=vector_of(module),
        normalisation=Normalisation.of(data),
        task=Multiclass(),
        input_shape=SHAPE,
        num_classes=CLASSES,
        batch_size=1,
        rule=StepRule(LR),
        local_steps=1,
        labels=image.y,
        clip_norm=None,
    )
    parameters = knowledge.parameters(torch.float32)
    gradient = expected_gradient(knowledge, parameters, image.x, image.y)
    flat = torch.cat([gradient[name].reshape(-1) for name in parameters]).detach()
    return Observation(-LR * flat, 1, knowledge)


def ours(observations: list[Observation], iterations: int) -> list[Tensor]:
    """The images found, as many at once as the attack takes."""
    attack = Geiping(0.01, 0.1, iterations, restarts=1, unrolled=True)
    n, found = attack.at_once(observations[0].knowledge), []
    for start in range(0, len(observations), n):
        part = observations[start : start + n]
        rngs = [np.random.default_rng(start + place) for place in range(len(part))]
        found += [guess.images for guess in attack.together(part, rngs)]
    return found


def theirs(observations: list[Observation], iterations: int) -> list[Tensor]:
    """The images that breaching finds, one after the other."""
    return [_theirs(one, number, iterations) for number, one in enumerate(observations)]


def _theirs(observation: Observation, seed: int, iterations: int) -> Tensor:
    known = observation.knowledge
    scale = known.normalisation
    mean, deviation = (float(t.flatten()[0]) for t in (scale.mean, scale.deviation))
    config = breaching.get_config(
        overrides=["case=1_single_image_small", "attack=invertinggradients"]
    )
    config.attack.optim.max_iterations = iterations
    config.attack.optim.callback = 10**9
    config.attack.restarts.num_trials = 1
    config.attack.impl.JIT = None
    module, labels = copy.deepcopy(known.module), known.labels
    assert labels is not None
    setup = {"device": torch.device("cpu"), "dtype": torch.float32}
    attack = breaching.attacks.prepare_attack(module, nn.CrossEntropyLoss(), config.attack, setup)
    for regulariser in attack.regularizers:  # written for three channels
        regulariser.groups, regulariser.weight = 1, regulariser.weight[:2]
    about = {
        "shape": list(SHAPE),
        "classes": CLASSES,
        "modality": "vision",
        "task": "classification",
    }
    metadata = OmegaConf.create({**about, "normalize": True, "mean": [mean], "std": [deviation]})
    shared = {
        "gradients": list(observation.gradient().values()),
        "buffers": None,
        "metadata": {
            "num_data_points": 1,
            "labels": labels.clone(),
            "num_users": 1,
            "local_hyperparams": None,
            "data_key": "inputs",
        },
    }
    parameters = [p.detach().clone() for p in module.parameters()]
    server = {"parameters": parameters, "buffers": list(module.buffers()), "metadata": metadata}
    torch.manual_seed(seed)
    found, _ = attack.reconstruct([server], [shared], {}, dryrun=False)
    return (found["data"].detach() * deviation + mean).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = IDXImages("mnist", "MNIST", SHAPE, CLASSES, validation_size=5000, split_seed=0)
    data = dataset(Path(os.environ["FEDEXP_DATA_DIR"])).train.rows(torch.arange(1000)).as_floats()
    images = [data.rows(torch.tensor([number])) for number in range(arguments.images)]
    for name in arguments.only:
        torch.manual_seed(0)
        module = MODELS[name]()
        observations = [observed(module, data, image) for image in images]
        seconds: dict[str, list[float]] = {"fedexp": [], "breaching": []}
        quality = {}
        for _ in range(arguments.turns):
            for who, attack in {"fedexp": ours, "breaching": theirs}.items():
                started = time.perf_counter()
                found = attack(observations, arguments.iterations)
                seconds[who].append(time.perf_counter() - started)
                near = [float(psnr_db(x, one.x)) for x, one in zip(found, images, strict=True)]
                quality[who] = statistics.mean(near)
        made = arguments.iterations * arguments.images
        ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
        line = {
            "model": name,
            "parameters": sum(p.numel() for p in module.parameters()),
            "iterations a second": {w: round(made / min(s)) for w, s in seconds.items()},
            "times as fast": [round(r, 2) for r in sorted(ratios)],
            "mean PSNR, dB": {who: round(psnr, 1) for who, psnr in quality.items()},
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
