import numpy as np
import pytest
import torch

from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from depthbal.data.transforms import EvalTransform, Lighting, TrainTransform
from tests.data.make_files import grey_image, noise_image, ramp_depth

PLAIN = {"rotation": 0.0, "flip": 0.0, "lighting": 0.0, "jitter": 0.0}
GEOMETRY = {"lighting": 0.0, "jitter": 0.0}


def pixels_of(image: torch.Tensor) -> np.ndarray:
    """Undo the normalisation: (H, W, 3) in 0 to 1."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image * std + mean).permute(1, 2, 0).numpy()


def depth_coded(height=240, width=320, seed=0):
    """A smooth depth map, 1 to 9 m, and an image whose three channels show it."""
    y, x = np.mgrid[:height, :width] / height
    depth = (5 + 2 * np.sin(5 * x + seed) + 2 * np.cos(4 * y * x)).astype(np.float32)
    image = np.repeat(np.rint(depth * 25)[..., None], 3, axis=2).astype(np.uint8)
    return image, depth


def test_evaluation_resizes_to_the_short_side_and_cuts_the_centre():
    image, depth = noise_image(240, 320), ramp_depth(240, 320)
    pixels, metres = EvalTransform()(image, depth)
    torch.testing.assert_close(pixels, normalise(image[6:234, 8:312]))
    assert np.array_equal(metres[0].numpy(), depth[6:234, 8:312])
    pixels, metres = EvalTransform(None, None, None)(image, depth)
    assert torch.equal(pixels, normalise(image))
    assert np.array_equal(metres[0].numpy(), depth)


def test_without_augmentation_training_equals_evaluation():
    image, depth = noise_image(300, 420), ramp_depth(300, 420)
    trained = TrainTransform(**PLAIN)(image, depth, 3)
    evaluated = EvalTransform(depth_size=(114, 152))(image, depth)
    for one, other in zip(trained, evaluated, strict=True):
        assert torch.equal(one, other)


def test_a_sample_depends_on_its_seed_and_changes_no_input():
    image, depth = noise_image(240, 320), ramp_depth(240, 320)
    before = image.copy(), depth.copy()
    transform = TrainTransform()
    first = transform(image, depth, 5)
    for seed in range(4):
        other = transform(image, depth, seed)[0]
        assert not torch.equal(other, first[0])
        shown = pixels_of(other)
        assert shown.min() > -1e-5
        assert shown.max() < 1 + 1e-5
    for again in (transform, TrainTransform()):
        for same, expected in zip(again(image, depth, 5), first, strict=True):
            assert torch.equal(same, expected)
    assert np.array_equal(image, before[0])
    assert np.array_equal(depth, before[1])


@pytest.mark.parametrize("seed", range(6))
def test_depth_moves_with_its_image_and_is_never_interpolated(seed):
    image, depth = depth_coded()
    transform = TrainTransform(depth_size=None, **GEOMETRY)
    pixels, metres = transform(image, depth, seed)
    metres = metres[0].numpy()
    shown = pixels_of(pixels)[..., 0] * 255 / 25
    assert np.isin(metres, np.append(depth, 0)).all()
    inside = np.zeros(metres.shape, dtype=bool)
    inside[20:-20, 20:-20] = True
    assert (metres[inside] > 0).all()
    # one pixel of shift costs up to 0.05 m here, rounding to 8 bit 0.02 m
    assert np.abs(metres - shown)[inside].max() < 0.08


def test_corners_left_empty_by_the_rotation_are_black_and_have_no_depth():
    image, depth = grey_image(240, 320, 255), ramp_depth(240, 320)
    transform = TrainTransform(crop_size=None, depth_size=None, rotation=5, flip=0, **GEOMETRY)
    for seed in range(5):
        pixels, metres = transform(image, depth, seed)
        empty = metres[0].numpy() == 0
        brightness = pixels_of(pixels).mean(axis=2)
        assert 0 < empty.mean() < 0.12
        assert empty[0, 0] or empty[0, -1]
        # a bilinear border pixel may be part grey, on either side of it
        assert np.mean(brightness[empty] < 0.99) > 0.97
        assert np.mean(brightness[~empty] > 0.5) > 0.995


def test_flips_and_angles_are_as_frequent_as_asked_and_independent_of_each_other():
    # A tilted edge tells the angle: its height at the left and at the right border.
    height, width = 60, 80
    depth = np.ones((height, width), dtype=np.float32)
    depth[30:] = 2
    depth[:30, :40] = 3  # left of the middle above the edge: tells the flip
    transform = TrainTransform(None, None, None, rotation=5.0, flip=0.3, **GEOMETRY)
    image = grey_image(height, width)
    flips, slopes = [], []
    for seed in range(400):
        metres = transform(image, depth, seed)[1][0].numpy()
        flips.append(metres[15, 60] == 3)
        edges = [int(np.argmax(metres[5:, column] == 2)) for column in (10, 69)]
        slopes.append(edges[1] - edges[0])
    flips, slopes = np.array(flips), np.array(slopes)
    assert abs(flips.mean() - 0.3) < 0.08
    # U(-5, 5) degrees over 59 columns: up to 5.16 rows, spread 59 tan(10 deg / sqrt 12)
    assert np.abs(slopes).max() <= 6
    assert abs(slopes.std() - 2.98) < 0.4
    assert abs(slopes.mean()) < 0.5
    assert abs(slopes[flips].mean() - slopes[~flips].mean()) < 0.9
    assert abs((slopes[flips] > 0).mean() - (slopes[~flips] > 0).mean()) < 0.2


def test_lighting_shifts_the_colour_by_imagenets_principal_axes():
    # Independent statement: the shift has covariance std^2 V diag(lambda^2) V^T.
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    expected = 0.1**2 * vectors @ np.diag([0.2175**2, 0.0188**2, 0.0045**2]) @ vectors.T
    lighting = Lighting(0.1)
    image = np.full((2, 2, 3), 128, dtype=np.uint8)
    lighting.set_random_seed(0)
    shifts = []
    for _ in range(3000):
        shifted = lighting(image=image)["image"]
        assert np.ptp(shifted.reshape(-1, 3), axis=0).max() == 0  # the same for every pixel
        shifts.append((shifted[0, 0] - 128.0) / 255)
    covariance = np.cov(np.array(shifts).T) - np.eye(3) / 12 / 255**2  # rounding to 8 bit
    np.testing.assert_allclose(covariance, expected, rtol=0.1)


def test_jitter_scales_brightness_within_its_range_only():
    # On a grey image contrast and saturation change nothing; brightness multiplies it.
    transform = TrainTransform(None, None, None, rotation=0, flip=0, lighting=0, jitter=0.4)
    factors = []
    for seed in range(200):
        pixels, _ = transform(grey_image(8, 8, 128), ramp_depth(8, 8), seed)
        shown = pixels_of(pixels)
        assert np.ptp(shown) < 1e-4
        factors.append(shown.mean() / (128 / 255))
    assert 0.59 < min(factors) < 0.65
    assert 1.35 < max(factors) < 1.41
    assert abs(np.mean(factors) - 1) < 0.06
