"""How near reconstructed images come to the true ones. Pixels in [0, 1] throughout.

    MSE = mean over channels and pixels of (x - y)^2
    PSNR = 10 log10(1 / MSE) in dB, at most PSNR_CAP_DB, which is what identical images get
    SSIM = mean over windows of (2 mx my + c1)(2 sxy + c2) / ((mx^2 + my^2 + c1)(sx^2 + sy^2 + c2))

with m, s^2 and sxy the means, variances and covariance of a window, c1 = 0.01^2 and c2 = 0.03^2.

Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004, section III. They weigh a
window of 11x11 by a Gaussian, for which 8x8 images are too small; here, as by default in
scikit-image, it is 7x7 and flat, and only windows that lie wholly in the image count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

PSNR_CAP_DB = 100.0  # an MSE of 1e-10: beyond, roundings decide, which differ between processors
GREY = 0.5  # what a true image that nothing was matched to is compared with
WINDOW = 7  # pixels, side of SSIM's window; smaller on images smaller than that
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for pixels in [0, 1]


def mse(images: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error, image by image: twice `[k, C, H, W]` to `[k]` float64."""
    _check(images, truth, pairs=True)
    return (images.double() - truth.double()).square().flatten(1).mean(dim=1)


def psnr_db(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, image by image: twice `[k, C, H, W]` to `[k]` float64.

    >>> black = torch.zeros(1, 1, 8, 8)
    >>> torch.cat([psnr_db(black, black), psnr_db(black, black + 0.5)])
    tensor([100.0000,   6.0206], dtype=torch.float64)
    """
    return (10 * mse(images, truth).reciprocal().log10()).clamp_max(PSNR_CAP_DB)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity by scikit-image, image by image: twice `[k, C, H, W]` to `[k]` float64.

    1 for identical images, about 0 for unrelated ones.
    """
    from skimage.metrics import structural_similarity

    _check(images, truth, pairs=True)
    side = _window(truth)
    return torch.tensor(
        [
            structural_similarity(  # type: ignore[no-untyped-call]
                x, y, win_size=side, channel_axis=0, data_range=1.0
            )
            for x, y in zip(images.double().numpy(), truth.double().numpy(), strict=True)
        ],
        dtype=torch.float64,
    )


def ssim_to_each(images: Tensor, others: Tensor) -> Tensor:
    """SSIM of every one of `[t, C, H, W]` with every one of `[k, C, H, W]`: `[t, k]` float64.

    The numbers of `ssim`, for many pairs at once: the windows' means and variances are taken once
    an image, only the covariances once a pair.
    """
    _check(images, others)
    side = _window(others)
    pixels = side * side
    unbiased = pixels / (pixels - 1)  # sample variances, as in scikit-image

    def means(x: Tensor) -> Tensor:
        # Rows, then columns: the same mean with 2 x 7 instead of 7 x 7 additions.
        return F.avg_pool2d(F.avg_pool2d(x, (1, side), stride=1), (side, 1), stride=1)

    x, y = images.double(), others.double()
    mx, my = means(x), means(y)
    vx, vy = (means(z * z) - m * m for z, m in ((x, mx), (y, my)))
    rows = []
    for one, m, v in zip(x, mx, vx, strict=True):
        covariance = unbiased * (means(one * y) - m * my)
        contrast = (2 * covariance + C2) / (unbiased * (v + vy) + C2)
        luminance = (2 * m * my + C1) / (m * m + my * my + C1)
        rows.append((luminance * contrast).flatten(1).mean(dim=1))
    return torch.stack(rows)


def matched(reconstructed: Tensor, truth: Tensor) -> Tensor:
    """For each true image the reconstruction that goes with it: `[n]` int64; -1 for none.

    One to one, with the least sum of MSEs (the Hungarian method, `scipy.optimize.
    linear_sum_assignment`): no reconstruction may stand for two true images.

    Args:
        reconstructed: `[k, C, H, W]`, k at most n; with fewer, n - k true images get none.
        truth: `[n, C, H, W]`.

    Raises:
        ValueError: more reconstructions than true images, which would be a choice of the best.
    """
    from scipy.optimize import linear_sum_assignment

    _check(reconstructed, truth)
    if len(reconstructed) > len(truth):
        raise ValueError(f"{len(reconstructed)} guesses for {len(truth)} images")
    x, y = reconstructed.double().flatten(1), truth.double().flatten(1)
    distances = (y[:, None] - x[None]).square().mean(dim=2)
    rows, columns = linear_sum_assignment(distances.numpy())
    indices = torch.full((len(truth),), -1, dtype=torch.int64)
    indices[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return indices


def arranged(reconstructed: Tensor, indices: Tensor) -> Tensor:
    """Reconstructions in the order of the true images: `[n, C, H, W]`, from `matched`'s answer.

    A true image without one gets an image of mid-grey: not the constant that would suit it best,
    which only somebody who knows it could choose.
    """
    images = torch.full((len(indices), *reconstructed.shape[1:]), GREY, dtype=reconstructed.dtype)
    found = indices >= 0
    images[found] = reconstructed[indices[found]]
    return images


def identified(images: Tensor, truth: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Whether an image singles out the true one among others of its kind: `[k]` float64, 0 or 1.

    NaN where there are no others: then anything would.

    It does if it correlates more with the true image than with every other. The correlation of
    pixels does not mind contrast and brightness, as errors do: a digit that anybody recognises may
    have a lower PSNR than the mean image of its class, which singles out nobody. A constant image
    correlates with nothing.

    Args:
        images: `[k, C, H, W]`.
        truth: `[k, C, H, W]`, the image that each should show.
        others: for each, `[m, C, H, W]` images that it could be taken for.
    """
    _check(images, truth)
    found = [
        float(_correlation(image, true[None]) > _correlation(image, beside).max())
        if len(beside)
        else math.nan
        for image, true, beside in zip(images, truth, others, strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64)


def _correlation(image: Tensor, others: Tensor) -> Tensor:
    """Pearson's, of one `[C, H, W]` with each of `[m, C, H, W]`: `[m]`; 0 for constants."""
    x, y = image.double().flatten(), others.double().flatten(1)
    x, y = x - x.mean(), y - y.mean(dim=1, keepdim=True)
    norms: Tensor = x.norm() * y.norm(dim=1)
    return torch.mv(y, x) / norms.clamp_min(1e-12)


def label_recovery(recovered: Tensor, truth: Tensor) -> float:
    """The share of the batch's labels `[n]` found, in any order; repeats count.

    >>> label_recovery(torch.tensor([3, 3, 1]), torch.tensor([1, 3, 5]))
    0.6666666666666666
    """
    both = Counter(recovered.tolist()) & Counter(truth.tolist())
    return both.total() / len(truth)


def total_variation(images: Tensor) -> Tensor:
    """How much each image changes from pixel to pixel: `[k, C, H, W]` to `[k]`; has a gradient.

    H x mean |vertical differences| + W x mean |horizontal differences|, the integral of the slope
    over an image of side 1: the same for a picture in any number of pixels. Others leave out H and
    W, or sum instead.
    """
    height, width = images.shape[2:]
    down = images.diff(dim=2).abs().flatten(1).mean(dim=1)
    across = images.diff(dim=3).abs().flatten(1).mean(dim=1)
    return height * down + width * across


def _window(images: Tensor) -> int:
    """The side of SSIM's window: odd, and no larger than the image."""
    side = min(WINDOW, *map(int, images.shape[2:]))
    return side if side % 2 else side - 1


def _check(images: Tensor, truth: Tensor, pairs: bool = False) -> None:
    first = 0 if pairs else 1
    if images.shape[first:] != truth.shape[first:]:
        raise ValueError(f"images {tuple(images.shape)} and truth {tuple(truth.shape)} differ")
    for pixels in (images, truth):
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ValueError("pixels must lie in [0, 1]")
