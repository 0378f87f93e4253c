"""Feature skew: the same patients everywhere, but every site has a scanner of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedexp.core.checks import InputError, in_range, one_of
from fedexp.core.examples import Split
from fedexp.core.partition import OwnPart, Partition
from fedexp.partition.assign import assign_sizes, check_enough, near_equal_sizes

Transform = Callable[[Tensor, Tensor], Tensor]
"""Images `[n, C, H, W]` in [0, 1] and an amount for each `[n]`, to new images."""

_ROWS_AT_ONCE = 4096  # bounds the memory that the sampling grids of a rotation take


@final
@dataclass(frozen=True)
class Feature:
    """An IID partition in which the images of each client went through that client's scanner.

    Site levels are spaced evenly from 0 to `strength` and assigned at random, so one site is left
    unchanged (with a single client that is the only one). A site's level times the full amount of
    its shift is what its scanner does, the same to all its images and in every round: rotation by
    an angle, loss of contrast, Gaussian blur, or Gaussian pixel noise, whose picture is drawn once.
    `mixed` spreads the four kinds evenly over the sites. Pixels stay in [0, 1]; labels and the
    shards, which equal those of `Iid` for the same rng, do not change. A client's own patients in
    validation and test are an even share of them, through its scanner.

    Evenly spaced noise levels are the "noise-based feature imbalance" of Li et al., "Federated
    Learning on Non-IID Data Silos", ICDE 2022; a rotation a site is "rotated MNIST" (Ghosh et al.,
    "An Efficient Framework for Clustered Federated Learning", NeurIPS 2020) with more angles.

    Args:
        shift: `rotation`, `contrast`, `blur`, `noise` or `mixed`.
        strength: the largest level, from 0 (no shift, IID) to 1 (the full amounts below).
        rotation_degrees: full rotation, counter-clockwise, 0 to 360.
        contrast_loss: part of the contrast lost in full, 0 to 1 (a flat image).
        blur_pixels: full standard deviation of the blur in pixels, 0 to 100.
        noise_deviation: full standard deviation of the noise, 0 to 1, pixels being in [0, 1].

    Raises:
        InputError: an argument is outside its range.
    """

    shift: str
    strength: float
    rotation_degrees: float
    contrast_loss: float
    blur_pixels: float
    noise_deviation: float

    def __post_init__(self) -> None:
        one_of(["rotation", "contrast", "blur", "noise", "mixed"], shift=self.shift)
        in_range(0, 1, strength=self.strength)
        in_range(0, 360, rotation_degrees=self.rotation_degrees)
        in_range(0, 1, contrast_loss=self.contrast_loss, noise_deviation=self.noise_deviation)
        in_range(0, 100, blur_pixels=self.blur_pixels)

    def __call__(self, train: Split, n_clients: int, rng: np.random.Generator) -> Partition:
        """Assign `train` to `n_clients` and return it with a copy of `train` as the sites see it.

        Raises:
            InputError: more clients than examples, no images, or pixels outside [0, 1], as after
                normalising.
        """
        check_enough(train, n_clients)
        if not train.are_images:
            raise InputError(
                f"is a scanner's, for images [channels, height, width], and these examples are "
                f"{list(train.x.shape[1:])}; use partition=iid or another that leaves them alone",
                "shift",
                self.shift,
            )
        seen = train.as_floats().x
        low, high = seen.min().item(), seen.max().item()
        if low < 0 or high > 1:
            raise InputError(
                f"needs pixels in [0, 1] and got {low:g} to {high:g}: partition first, then "
                "normalise",
                "shift",
                self.shift,
            )
        sizes = near_equal_sizes(len(train), n_clients)
        shards = assign_sizes(train, sizes, rng).shards
        kinds = list(_KINDS) if self.shift == "mixed" else [self.shift]
        levels = rng.permutation(np.linspace(0, self.strength, n_clients))
        scanners = _Scanners(
            kinds=tuple(rng.permutation(np.resize(kinds, n_clients)).tolist()),
            levels=tuple(levels.tolist()),
            full={
                "rotation": self.rotation_degrees,
                "contrast": self.contrast_loss,
                "blur": self.blur_pixels,
                "noise": self.noise_deviation,
            },
        )
        x = scanners(seen, shards, rng)
        validation, test = rng.spawn(2)  # leaves the stream as it is
        streams = {"validation": validation, "test": test}
        own = partial(_through_own_scanner, scanners, streams)
        return Partition(train.with_x(x), shards, own=own)


_KINDS = ("rotation", "contrast", "blur", "noise")  # in the order in which they are applied


@dataclass(frozen=True)
class _Scanners:
    """What each site does to its images."""

    kinds: tuple[str, ...]  # [n_clients]
    levels: tuple[float, ...]  # [n_clients] from 0, no shift, to 1
    full: Mapping[str, float]  # by kind, the amount at level 1

    def __call__(
        self, seen: Tensor, shards: Sequence[np.ndarray], rng: np.random.Generator
    ) -> Tensor:
        """A copy of images `[n, C, H, W]` in which each site's rows went through its scanner."""
        transforms: dict[str, Transform] = {
            "rotation": rotate,
            "contrast": lose_contrast,
            "blur": blur,
            "noise": partial(add_noise, rng=rng),
        }
        x, levels = seen.clone(), np.array(self.levels)
        for kind in _KINDS:
            amount_at = levels * self.full[kind]
            chosen = (np.array(self.kinds) == kind) & (amount_at > 0)
            sites: list[int] = np.flatnonzero(chosen).tolist()
            if not sites:
                continue
            rows = torch.from_numpy(np.concatenate([shards[site] for site in sites]))
            sizes = [len(shards[site]) for site in sites]
            amounts = torch.from_numpy(np.repeat(amount_at[sites], sizes))
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                block = rows[start : start + _ROWS_AT_ONCE]
                amount = amounts[start : start + _ROWS_AT_ONCE].to(x.dtype)
                x[block] = transforms[kind](seen[block], amount).clamp(0, 1)
        return x


def _through_own_scanner(
    scanners: _Scanners, streams: Mapping[str, np.random.Generator], part: Split, name: str
) -> OwnPart:
    """A part dealt out evenly, each client's share of it through the client's own scanner."""
    rng = deepcopy(streams[name])  # asked twice, the same answer
    sizes = near_equal_sizes(len(part), len(scanners.levels))
    owner = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    shards = tuple(np.flatnonzero(owner == client) for client in range(len(sizes)))
    return OwnPart(part.with_x(scanners(part.as_floats().x, shards, rng)), shards)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Images `[n, C, H, W]` turned counter-clockwise about their centre by `degrees` `[n]`.

    Bilinear; what comes from outside the image is 0.
    """
    height, width = images.shape[-2:]
    cos, sin = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
    zero = torch.zeros_like(cos)
    # affine_grid maps an output place to its source, in units of half the width and half the
    # height, hence the ratios; y points down, hence this sense of rotation.
    to_source = torch.stack(
        [
            torch.stack([cos, -sin * (height / width), zero], dim=1),
            torch.stack([sin * (width / height), cos, zero], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(to_source, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def lose_contrast(images: Tensor, loss: Tensor) -> Tensor:
    """Images `[n, C, H, W]` moved towards their own mean grey by the part `loss` `[n]`.

    >>> lose_contrast(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([0.5])).tolist()
    [[[[0.25, 0.75]]]]
    """
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return images + loss[:, None, None, None] * (mean - images)


def blur(images: Tensor, pixels: Tensor) -> Tensor:
    """Images `[n, C, H, W]` under Gaussian blurs of standard deviations `pixels` `[n]`, above 0.

    The weights are scaled to sum to 1 inside the image, so that borders do not darken.
    """

    def weights(length: int) -> Tensor:
        place = torch.arange(length, dtype=images.dtype)
        distance = (place[:, None] - place) / pixels[:, None, None]
        gaussian = torch.exp(-0.5 * distance**2)
        return (gaussian / gaussian.sum(dim=-1, keepdim=True))[:, None]  # [n, 1, length, length]

    height, width = images.shape[-2:]
    return weights(height) @ images @ weights(width).mT


def add_noise(images: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """Images `[n, C, H, W]` plus N(0, deviation^2) a pixel, with `deviation` `[n]`."""
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
    return images + deviation[:, None, None, None] * noise
