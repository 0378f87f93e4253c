"""How sure a model is of labelled examples, and how often it is right.

How sure it is of example (x, y) is the logit of its probability,

    phi = log p_y - log(1 - p_y) = z_y - log sum over k != y of exp(z_k),    loss = log(1 + e^-phi)

z being the model's logits, taken to float64 and never turned into a probability, which would round
to 1 for every example that a model has learned by heart.

Source of phi: Carlini, Chien, Nasr, Song, Terzis and Tramèr, "Membership Inference Attacks From
First Principles", IEEE S&P 2022, section 4.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import FlatModel
from fedexp.core.normalise import Normalisation
from fedexp.core.workload import evaluation_batch
from fedexp.leakage.victim import Victim


def true_class_logits(
    model: nn.Module, params: Tensor, normalisation: Normalisation, examples: Split
) -> np.ndarray:
    """The phi `[n]` float64 of each example under the model `params` `[d]`.

    Raises:
        InputError: the model's answers are not finite.
    """
    return phi_of(finite_logits(model, params, normalisation, examples), examples.y)


def finite_logits(
    model: nn.Module, params: Tensor, normalisation: Normalisation, examples: Split
) -> Tensor:
    """The z `[n, classes]` float64 of the model `params` `[d]`.

    Raises:
        InputError: the model's answers are not finite.
    """
    logits = _logits(model, params, normalisation, examples).double()
    if not bool(logits.isfinite().all()):
        raise InputError("the model diverged: its logits are not finite")
    return logits


def phi_of(logits: Tensor, y: Tensor) -> np.ndarray:
    """The phi `[n]` of logits `[n, classes]` float64 and classes `[n]`."""
    truth = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    others = logits.masked_fill(truth, -torch.inf).logsumexp(dim=1)
    phi: np.ndarray = (logits[truth] - others).numpy()
    return phi


def negative_loss(phi: np.ndarray) -> np.ndarray:
    """Minus the cross-entropy `[n]`, from `true_class_logits`.

    >>> negative_loss(np.array([0.0])).round(4).tolist()  # p = 1/2
    [-0.6931]
    """
    loss: np.ndarray = np.logaddexp(0.0, -phi)
    return -loss


def accuracies(victim: Victim, params: Tensor) -> dict[str, float]:
    """How often the model `params` `[d]` is right on the training part and on the test part."""
    parts = {"train_accuracy": victim.pixels.train, "test_accuracy": victim.pixels.test}
    answers = {
        name: victim.task.predict(
            _logits(victim.model, params.to(victim.device), victim.normalisation, part)
        )
        for name, part in parts.items()
    }
    return {name: float((answers[name] == parts[name].y).double().mean()) for name in parts}


def _logits(
    model: nn.Module, params: Tensor, normalisation: Normalisation, examples: Split
) -> Tensor:
    """`[n, classes]` of the model `params` `[d]`, computed where that lies; on the CPU."""
    device = params.device
    flat = FlatModel(model, device, normalisation)
    flat.load(params)
    flat.module.eval()
    size = evaluation_batch(device, examples.x[:1].numel())
    batches = (examples.between(i, i + size).to(device) for i in range(0, len(examples), size))
    with torch.inference_mode():
        return torch.cat([flat.module(flat.arrange(batch)) for batch in batches]).cpu()
