import numpy as np
import pytest
import scipy.ndimage
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import adjust_contrast
from torchvision.transforms.v2.functional import rotate as torchvision_rotate

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.partition.feature import Feature, add_noise, blur, lose_contrast, rotate
from fedexp.partition.iid import Iid

FULL = {
    "strength": 1.0,
    "rotation_degrees": 90.0,
    "contrast_loss": 0.8,
    "blur_pixels": 1.5,
    "noise_deviation": 0.3,
}
KINDS = ["rotation", "contrast", "blur", "noise"]


def images(n, channels=1, height=8, width=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, height, width, generator=generator)


def split(n, channels=1, side=8):
    return Split(images(n, channels, side, side), torch.arange(n) % 3)


def changed_sites(before, partition):
    return [
        not torch.equal(before.x[shard], partition.train.x[shard]) for shard in partition.shards
    ]


def test_rotation_by_90_degrees_is_counter_clockwise_and_exact():
    x = images(2, channels=3)
    turned = rotate(x, torch.tensor([90.0, 270.0]))
    assert torch.allclose(turned[0], torch.rot90(x[0], 1, dims=(1, 2)), atol=1e-5)
    assert torch.allclose(turned[1], torch.rot90(x[1], -1, dims=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (12, 20)])
def test_rotation_equals_torchvision_s(height, width):
    x = images(3, 1, height, width)
    angles = torch.tensor([10.0, 33.0, 75.0])
    expected = torch.stack(
        [
            torchvision_rotate(image, angle.item(), InterpolationMode.BILINEAR)
            for image, angle in zip(x, angles, strict=True)
        ]
    )
    # torchvision fades the border with a mask of its own; inside they agree.
    inside = (..., slice(4, -4), slice(4, -4)) if height > 8 else (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(rotate(x, angles)[inside], expected[inside], atol=1e-4)


def test_contrast_equals_torchvision_s_for_grey_images():
    x = images(2)
    expected = torch.stack([adjust_contrast(x[0], 0.75), adjust_contrast(x[1], 0.2)])
    assert torch.allclose(lose_contrast(x, torch.tensor([0.25, 0.8])), expected, atol=1e-6)


def test_blur_equals_scipy_s_away_from_the_border_and_keeps_flat_images_flat():
    x = images(2, 3, 28, 28)
    sigmas = [0.7, 1.5]
    got = blur(x, torch.tensor(sigmas))
    for image, sigma, ours in zip(x, sigmas, got, strict=True):
        expected = scipy.ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), truncate=8)
        assert np.allclose(ours[:, 12:-12, 12:-12], expected[:, 12:-12, 12:-12], atol=1e-5)
    flat = torch.full((1, 1, 8, 8), 0.4)
    assert torch.allclose(blur(flat, torch.tensor([3.0])), flat)


def test_a_blur_far_below_a_pixel_changes_nothing():
    x = images(1)
    assert torch.equal(blur(x, torch.tensor([1e-30])), x)


def test_noise_has_the_deviation_asked_for():
    grey = torch.full((2, 1, 200, 200), 0.5)
    noise = add_noise(grey, torch.tensor([0.1, 0.3]), np.random.default_rng(0)) - grey
    assert noise.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.1, 0.3], rel=0.02)


@pytest.mark.parametrize("shift", [*KINDS, "mixed"])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 28)])
def test_all_sites_but_one_change_and_pixels_stay_in_range(shift, channels, side):
    train = split(60, channels, side)
    partition = Feature(shift=shift, **FULL)(train, 6, np.random.default_rng(0))
    assert sorted(changed_sites(train, partition)) == [False] + [True] * 5
    assert partition.train.x.shape == train.x.shape
    assert partition.train.x.dtype == torch.float32
    assert partition.train.x.min() >= 0
    assert partition.train.x.max() <= 1
    assert torch.equal(partition.train.y, train.y)


def test_levels_are_evenly_spaced_up_to_the_strength():
    # An image of 0 and 1 that loses the contrast c has the deviation 0.5 (1 - c).
    x = torch.zeros(20, 1, 2, 2)
    x[:, :, 0] = 1
    train = Split(x, torch.zeros(20, dtype=torch.int64))
    feature = Feature(**{"shift": "contrast", **FULL, "strength": 0.5})
    partition = feature(train, 5, np.random.default_rng(0))
    losses = [
        1 - 2 * partition.train.x[row].std(correction=0).item()
        for shard in partition.shards
        for row in shard
    ]
    by_site = np.array(losses).reshape(5, 4)
    assert np.ptp(by_site, axis=1).max() < 1e-6  # one scanner a site
    assert sorted(by_site[:, 0]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-6)
    assert by_site[:, 0].tolist() != sorted(by_site[:, 0])  # dealt at random


def test_mixed_gives_each_site_one_of_the_four_kinds():
    train = split(90)
    feature = Feature(**{"shift": "mixed", **FULL, "contrast_loss": 0, "noise_deviation": 0})
    # Contrast and noise are switched off: of nine sites four or five blur or rotate, less the site
    # at level 0 should it be among them.
    changed = sum(changed_sites(train, feature(train, 9, np.random.default_rng(0))))
    assert changed in (3, 4, 5)


def test_shards_are_those_of_the_iid_deal_and_strength_0_changes_nothing():
    train = split(50)
    iid = Iid()(train, 7, np.random.default_rng(3))
    for strength in (0.0, 1.0):
        feature = Feature(**{"shift": "mixed", **FULL, "strength": strength})
        partition = feature(train, 7, np.random.default_rng(3))
        for ours, theirs in zip(partition.shards, iid.shards, strict=True):
            assert np.array_equal(ours, theirs)
        assert torch.equal(partition.train.x, train.x) == (strength == 0)


def test_blocks_of_rows_do_not_show():
    # 5000 rows of one kind, more than are transformed at once: compare with one call.
    train = split(10_000, side=4)
    feature = Feature(**{"shift": "rotation", **FULL})
    partition = feature(train, 2, np.random.default_rng(0))
    site = changed_sites(train, partition).index(True)
    rows = torch.from_numpy(partition.shards[site])
    expected = rotate(train.x[rows], torch.full((len(rows),), 90.0)).clamp(0, 1)
    assert torch.allclose(partition.train.x[rows], expected)


def test_refusals_name_the_argument():
    for name, bad in {
        "shift": "rotated",
        "strength": 1.5,
        "rotation_degrees": -1,
        "contrast_loss": 2,
        "blur_pixels": float("inf"),
        "noise_deviation": float("nan"),
    }.items():
        with pytest.raises(InputError, match=f"^{name}={bad}"):
            Feature(**{"shift": "mixed", **FULL, name: bad})
    normalised = Split(images(4) * 4 - 2, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match=r"pixels in \[0, 1\].*partition first, then normalise"):
        Feature(shift="mixed", **FULL)(normalised, 2, np.random.default_rng(0))
