"""Known answers: identical images, constants, one pixel off, permuted batches."""

import itertools

import pytest
import torch

from fedexp.leakage.updates.image_scores import (
    GREY,
    PSNR_CAP_DB,
    arranged,
    identified,
    label_recovery,
    matched,
    mse,
    psnr_db,
    ssim,
    ssim_to_each,
    total_variation,
)

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 28, 28), (1, 5, 6)]


def random_images(k, shape=(1, 8, 8), seed=0):
    return torch.rand(k, *shape, generator=torch.Generator().manual_seed(seed))


def constant(value, shape=(1, 8, 8)):
    return torch.full((1, *shape), value, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_identical_images_score_exactly_the_best(shape):
    images = random_images(3, shape)
    assert mse(images, images).tolist() == [0.0] * 3
    assert psnr_db(images, images).tolist() == [PSNR_CAP_DB] * 3
    torch.testing.assert_close(ssim(images, images), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_constants_by_hand(shape):
    images, truth = constant(0.25, shape), constant(0.75, shape)
    assert mse(images, truth).item() == pytest.approx(0.25)
    assert psnr_db(images, truth).item() == pytest.approx(6.020599913279624)  # 10 log10 4
    # Without variance SSIM is (2 m1 m2 + c1) / (m1^2 + m2^2 + c1).
    assert ssim(images, truth).item() == pytest.approx((0.375 + 1e-4) / (0.625 + 1e-4))


def test_black_and_white_are_as_far_apart_as_can_be():
    assert psnr_db(constant(0.0), constant(1.0)).item() == 0.0
    assert ssim(constant(0.0), constant(1.0)).item() == pytest.approx(1e-4 / 1.0001)


def test_one_pixel_off():
    truth = constant(0.5)
    images = truth.clone()
    images[0, 0, 0, 0] = 1.0
    assert mse(images, truth).item() == pytest.approx(0.25 / 64)
    assert psnr_db(images, truth).item() == pytest.approx(24.082399653118497)  # 10 log10 256
    # One of the four 7x7 windows holds the pixel: mean .5 + .5/49, sample variance .25/49.
    mean, c1, c2 = 0.5 + 0.5 / 49, 1e-4, 9e-4
    window = (mean + c1) / (mean**2 + 0.25 + c1) * c2 / (0.25 / 49 + c2)
    assert ssim(images, truth).item() == pytest.approx((3 + window) / 4)


def test_errors_too_small_for_float32_reach_the_cap():
    truth = constant(0.5)
    assert psnr_db(truth + 1e-7, truth).item() == PSNR_CAP_DB
    assert psnr_db(truth + 1e-4, truth).item() == pytest.approx(80.0, abs=1e-6)


def test_each_image_has_its_own_score():
    images, truth = random_images(4, seed=1), random_images(4, seed=2)
    for score in (mse, psnr_db, ssim):
        alone = torch.cat([score(x[None], y[None]) for x, y in zip(images, truth, strict=True)])
        torch.testing.assert_close(score(images, truth), alone)


@pytest.mark.parametrize("shape", SHAPES)
def test_many_pairs_at_once_agree_with_scikit_image(shape):
    images, others = random_images(3, shape, seed=3), random_images(5, shape, seed=4)
    others[0] = images[0]
    others[1] = 0.8 * images[1] + 0.1
    others[2] = 0.5
    expected = torch.stack([ssim(x.expand(5, *shape), others) for x in images])
    torch.testing.assert_close(ssim_to_each(images, others), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("score", [mse, psnr_db, ssim, ssim_to_each, matched])
@pytest.mark.parametrize("wrong", [1.1, -0.1, float("nan")])
def test_what_is_no_image_has_no_score(score, wrong):
    truth = random_images(2)
    images = truth.clone()
    images[1, 0, 3, 3] = wrong
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        score(images, truth)


@pytest.mark.parametrize("score", [mse, psnr_db, ssim, ssim_to_each, matched])
def test_other_shapes_are_refused_not_broadcast(score):
    with pytest.raises(ValueError, match="differ"):
        score(random_images(2, (1, 8, 8)), random_images(2, (3, 8, 8)))


@pytest.mark.parametrize("score", [mse, psnr_db, ssim])
def test_other_numbers_of_images_are_refused_not_broadcast(score):
    with pytest.raises(ValueError, match="differ"):
        score(random_images(1), random_images(2))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_permuted_batch_is_put_back(order):
    truth = random_images(3)
    reconstructed = truth[list(order)]
    indices = matched(reconstructed, truth)
    assert [order[i] for i in indices.tolist()] == [0, 1, 2]
    assert torch.equal(arranged(reconstructed, indices), truth)


def test_the_matching_is_best_in_sum_and_one_to_one():
    # The first guess is the best for both; giving it to the second image costs .04 + .01 in MSE,
    # to the first 0 + .49.
    truth = torch.cat([constant(0.5), constant(0.6)])
    reconstructed = torch.cat([constant(0.5), constant(0.3)])
    assert matched(reconstructed, truth).tolist() == [1, 0]


def test_an_image_without_a_reconstruction_is_scored_against_grey():
    truth = torch.cat([constant(0.9), constant(0.1), constant(0.2)])
    indices = matched(constant(0.2), truth)
    assert indices.tolist() == [-1, -1, 0]
    images = arranged(constant(0.2), indices)
    assert images[:, 0, 0, 0].tolist() == pytest.approx([GREY, GREY, 0.2])
    assert mse(images, truth).tolist() == pytest.approx([0.16, 0.16, 0.0])


def test_no_reconstruction_at_all_is_all_grey():
    indices = matched(torch.empty(0, 1, 8, 8), random_images(2))
    assert indices.tolist() == [-1, -1]
    assert arranged(torch.empty(0, 1, 8, 8), indices).eq(GREY).all()


def test_more_guesses_than_images_are_refused():
    with pytest.raises(ValueError, match="3 guesses for 2 images"):
        matched(random_images(3), random_images(2))


@pytest.mark.parametrize(
    ("recovered", "truth", "share"),
    [
        ([1, 2, 3, 4], [4, 3, 2, 1], 1.0),
        ([1, 1, 1, 1], [1, 2, 3, 4], 0.25),
        ([1, 1, 2, 2], [1, 1, 1, 2], 0.75),
        ([5], [6], 0.0),
        ([2], [2, 2], 0.5),
        ([], [2], 0.0),
    ],
)
def test_labels_recovered_count_repeats(recovered, truth, share):
    recovered, truth = (torch.tensor(y, dtype=torch.int64) for y in (recovered, truth))
    assert label_recovery(recovered, truth) == share


def test_total_variation_by_hand():
    # One step of 1 across a 4x6 image: 4 of 20 horizontal differences are 1, times the width.
    image = torch.zeros(1, 1, 4, 6)
    image[..., 3:] = 1
    assert total_variation(image).item() == pytest.approx(6 * 4 / 20)
    assert total_variation(image.transpose(2, 3)).item() == pytest.approx(6 * 4 / 20)
    assert total_variation(torch.full((1, 3, 4, 6), 0.7)).item() == 0.0


def test_total_variation_is_about_the_same_in_any_number_of_pixels():
    small = torch.zeros(1, 1, 8, 8)
    small[..., 2:6, 2:6] = 1
    large = small.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert total_variation(small).item() == pytest.approx(2 * 8 / 7)  # the outline, 4 x 1/2
    assert total_variation(large).item() == pytest.approx(2 * 64 / 63)


def test_an_image_that_singles_out_its_own_is_identified_whatever_its_contrast():
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    faint, others = 0.4 + 0.1 * x, [x[[1, 2]], x[[0, 2]], x[[0, 1]]]
    assert identified(faint, x, others).tolist() == [1, 1, 1]
    assert identified(faint[[1, 0, 2]], x, others).tolist() == [0, 0, 1]
    assert identified(1 - faint, x, others).tolist() == [0, 0, 0]
    grey = torch.full_like(x, 0.5)
    assert identified(grey, x, [x[[1]], x[[2]], x[[0]]]).tolist() == [0, 0, 0]
    assert identified(x, x, [x[:0]] * 3).isnan().all()  # nobody else it could be
