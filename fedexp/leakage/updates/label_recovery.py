"""Which labels an update was made of, from its last layer alone.

    g_c = 1/b sum_j (p_jc - [y_j = c]),   so that   n_c = b (p_c - g_c)

g is the gradient of the last layer's bias, p_jc the softmax output c on image j and p_c its mean
over the batch of b images, n_c the images of class c. An absent class has g_c >= 0: a negative
entry proves its class present, and at b = 1 it is the label. The rest is counted: time and again
the class whose p_c - g_c exceeds its share of the labels found so far by most gets one more. For
p_c, which the adversary does not know, stands the model's output on a blank image; after several
local steps the mean of that and of the same where the update ends, as outputs move on the way.

Where the size of the entries says nothing (no bias, clipped gradients) they are scaled so that the
negative ones add up to what an untrained model gives. Without a bias, row sums of the last weight's
gradient take its place: what enters the last layer is not negative after a ReLU or a sigmoid.

Source: Zhao, Mopuri and Bilen, "iDLG: Improved Deep Leakage from Gradients", 2020, section 3.1, for
b = 1; Wainakh et al., "User-Level Label Leakage from Gradients in Federated Learning", PETS 2022,
section 4, for negative entries first and then greedy counts. Ours takes p_c from one blank image:
measured on MNIST, as good as images of noise on untrained models, and better on trained ones. That
the output is taken along the way: Dimitrov et al., "Data Leakage in Federated Averaging", TMLR
2022, section 4.3, who interpolate it for every step; both ends found as many labels as five points.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from fedexp.core.checks import InputError
from fedexp.leakage.observation import Knowledge, Observation


def assumed_labels(observation: Observation) -> Tensor:
    """The labels that were shared, else the recovered ones: `[batch_size]` int64."""
    shared = observation.knowledge.labels
    if shared is not None:
        return shared
    return recovered_labels(observation).to(observation.update.device)


def recovered_labels(observation: Observation) -> Tensor:
    """The most likely labels behind an update, sorted: `[batch_size]` int64, on the CPU.

    Several local steps are read as one with the mean gradient, at outputs between both ends.

    Raises:
        InputError: the model's last layer is not a linear one with an output a class.
    """
    known = observation.knowledge
    signal = _last_layer(observation).cpu()
    missing = _output_on_the_way(observation).cpu() - signal  # n_c / b, as far as p_c is right
    counts = torch.zeros(known.num_classes, dtype=torch.int64)
    for label in signal.argsort(stable=True)[: known.batch_size].tolist():
        counts[label] = int(signal[label] < 0)
    for _ in range(known.batch_size - int(counts.sum())):
        counts[(missing - counts / known.batch_size).argmax()] += 1
    return torch.arange(known.num_classes).repeat_interleave(counts)


def _last_layer(observation: Observation) -> Tensor:
    """The gradient of the last layer's bias, or what comes nearest: `[classes]` float64."""
    known = observation.knowledge
    linear = [(n, m) for n, m in known.module.named_modules() if isinstance(m, nn.Linear)]
    gradient = observation.gradient()
    if linear and linear[-1][1].out_features == known.num_classes:
        name = linear[-1][0]
        prefix = f"{name}." if name else ""
        bias, weight = gradient.get(f"{prefix}bias"), gradient.get(f"{prefix}weight")
        if bias is not None and known.clip_norm is None:
            return bias
        if bias is not None:
            return _scaled(bias)
        if weight is not None:
            return _scaled(weight.sum(dim=1))
    raise InputError(
        "labels are recovered from a last layer that is linear with an output for each of the "
        f"{known.num_classes} classes, and this model has none that is trained",
        "model",
        type(known.module).__name__,
    )


def _scaled(signal: Tensor) -> Tensor:
    """With the negative entries adding up to -(1 - 1 / classes): every output was as likely."""
    negative = -signal.clamp(max=0).sum()
    return signal * (1 - 1 / len(signal)) / negative if negative > 0 else signal


def _output_on_the_way(observation: Observation) -> Tensor:
    """The output `[classes]` where the steps begin, and where they end if there are several.

    An update whose gradients were clipped and noised ends anywhere: the start alone.
    """
    known = observation.knowledge
    start = _output_on_a_blank(known)
    if known.local_steps == 1 or known.clip_norm is not None:
        return start
    end = replace(known, params=known.params + observation.update)
    return (start + _output_on_a_blank(end)) / 2


def _output_on_a_blank(knowledge: Knowledge) -> Tensor:
    """The softmax output on an image of mean pixels: `[classes]` float64."""
    blank = knowledge.normalisation.mean.double().expand(1, *knowledge.input_shape)
    with torch.no_grad():
        logits = knowledge.logits(knowledge.parameters(torch.float64), blank)
    return logits.softmax(dim=1)[0]
