"""What images of a kind look like, learned from others of that kind: a Gaussian.

    E(x) = 1/d ( sum_i (u_i . (x - m))^2 / l_i  +  |r|^2 / s^2 ),   r = (x - m) off all the u_i

-E(x) d / 2 is the log likelihood of an image x of d numbers, up to a constant, under the Gaussian
with mean m whose covariance has the eigenvalues l_i along the principal components u_i and s^2
along all others: probabilistic principal components. E is about 1 for an image of the kind, and
larger the less it looks like one: large where pixels differ that never do, small where they differ
as they use to, in colour as in shape. Total variation, the usual prior, knows of smoothness alone.

Source of the Gaussian, fitted by maximum likelihood: Tipping and Bishop, "Probabilistic Principal
Component Analysis", J. R. Stat. Soc. B 61(3), 1999, section 3.2, by scikit-learn. Inversion as the
likeliest images given the gradient and a prior on images: Balunovic, Dimitrov, Staab and Vechev,
"Bayesian Framework for Gradient Leakage", ICLR 2022. What it gains is in docs/results/leakage.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from fedexp.core.checks import InputError

LEAST = 1e-6  # of the mean variance: what no image of the kind ever does is not infinitely unlikely


@final
@dataclass(frozen=True)
class GaussianPrior:
    """How unlikely images are, beside those it was learned from.

    Args:
        mean: `[d]` of the images.
        components: `[k, d]` the directions u_i, of length 1.
        variances: `[k]` along them, l_i.
        rest: s^2, the variance along every other direction.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    rest: float

    @classmethod
    def of(cls, images: Tensor, explained: float) -> GaussianPrior:
        """Learned from images, on their device.

        Args:
            images: `[n, C, H, W]`, at least two that differ.
            explained: the share of their variance that the components are to explain.

        Raises:
            InputError: the images do not differ.
        """
        from sklearn.decomposition import PCA

        rows = images.flatten(1).double().cpu().numpy()
        if len(rows) < 2 or not rows.var(axis=0).any():
            raise InputError(
                "needs at least two images of the kind that differ", "prior_images", len(rows)
            )
        found = PCA(explained, svd_solver="full").fit(rows)
        least = LEAST * rows.var(axis=0).mean()

        def there(array: object) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32).to(images.device)

        return cls(
            mean=there(found.mean_),
            components=there(found.components_),
            variances=there(found.explained_variance_),
            rest=max(float(found.noise_variance_), float(least)),
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """The mean E of images `[..., C, H, W]`: `[]`."""
        rows = pixels.flatten(-3) - self.mean
        along = rows @ self.components.T
        # |r|^2 = |x - m|^2 - sum of the squares along the components
        inside = (along.square() * (1 / self.variances - 1 / self.rest)).sum(dim=-1)
        energy = inside + rows.square().sum(dim=-1) / self.rest
        return energy.mean() / len(self.mean)
