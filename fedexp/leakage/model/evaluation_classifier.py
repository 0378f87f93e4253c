"""A judge of pictures: which class does somebody else's classifier see in them?

A support vector machine with a Gaussian kernel on the pixels, so nothing like the networks that
are attacked: a picture that only exploits a network's own weaknesses does not convince it. It is
fitted to images that the attacked model never saw, each once as it is and once with Gaussian noise
added, as pictures made by an attack are noisy.

Source: the evaluation by a second classifier is that of Zhang et al., "The Secret Revealer:
Generative Model-Inversion Attacks Against Deep Neural Networks", CVPR 2020, section 4. Theirs is a
network; a kernel machine is stricter with noisy pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.rng import torch_generator

MOST_EXAMPLES = 5_000  # the time of a fit grows with the square of their number
NOISE_DEVIATION = 0.2  # in pixel values
PENALTY = 10.0  # C of the support vector machine


@final
@dataclass(frozen=True)
class EvaluationClassifier:
    """Made by `fit`.

    Args:
        machine: scikit-learn's `SVC`, fitted.
    """

    machine: Any

    @classmethod
    def fit(cls, split: Split, num_classes: int, seed: int) -> EvaluationClassifier:
        """Fitted to at most `MOST_EXAMPLES` of `split`, drawn by `seed` as is the noise.

        Raises:
            InputError: the examples drawn have fewer than two classes, or labels out of range.
        """
        from sklearn.svm import SVC

        g = torch_generator(seed)
        drawn = split.rows(torch.randperm(len(split), generator=g)[:MOST_EXAMPLES])
        classes = drawn.y.unique()
        if len(classes) < 2 or bool(classes[-1] >= num_classes):
            raise InputError(
                f"the evaluation classifier needs held-out examples of two or more of the "
                f"{num_classes} classes, and has {len(drawn)} of {len(classes)}"
            )
        noise = NOISE_DEVIATION * torch.randn(drawn.x.shape, generator=g)
        pixels = torch.cat([drawn.x, (drawn.x + noise).clamp(0, 1)])
        machine = SVC(C=PENALTY, gamma="scale")
        machine.fit(pixels.flatten(1).numpy(), torch.cat([drawn.y, drawn.y]).numpy())
        return cls(machine)

    def predict(self, images: Tensor) -> Tensor:
        """The class it sees in each of `[k, C, H, W]`, pixels in [0, 1]: `[k]` int64."""
        return torch.from_numpy(self.machine.predict(images.flatten(1).numpy()))

    def accuracy(self, split: Split) -> float:
        """The share of `split` that it gets right: what its word is worth."""
        return float((self.predict(split.x) == split.y).double().mean())
