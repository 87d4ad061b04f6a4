"""SPIN's crops: where their corners lie, and that pictures and poses change together."""

import numpy as np
import pytest
import torch

from depthbal.adapters.hmr.body import rotmats_of
from depthbal.adapters.hmr.data import (
    FLIPPED_JOINTS,
    Change,
    change_pose,
    crop_corners,
    crop_image,
    draw_change,
)
from depthbal.adapters.hmr.synthetic import PARENTS
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD


def picture(height=300, width=400):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels(crop):
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (255 * (crop * std + mean)).permute(1, 2, 0).numpy()


def test_corners_are_cut_to_whole_pixels_towards_zero():
    draw = np.random.default_rng(0)
    for center, scale in zip(
        draw.uniform(-100, 700, (20, 2)), draw.uniform(0.2, 4, 20), strict=True
    ):
        exact = np.stack([center - 100 * scale, center + 100 * scale])
        assert (crop_corners(center, scale) == np.trunc(exact)).all()


def test_a_box_of_the_crops_size_is_cut_out_as_it_is_and_beyond_the_image_it_is_black():
    image = picture()
    crop = levels(crop_image(image, np.array([160.3, 150.3]), 1.12))
    np.testing.assert_allclose(crop, image[38:262, 48:272], atol=1e-3)
    crop = levels(crop_image(np.full((50, 50, 3), 200, np.uint8), np.array([0.0, 0.0]), 1.12))
    assert np.allclose(crop[:112, :112], 0, atol=1e-3)
    assert np.allclose(crop[112:162, 112:162], 200, atol=1e-3)
    assert np.allclose(crop[170:], 0, atol=1e-3)
    beyond = levels(crop_image(image, np.array([-900.0, -900.0]), 0.5))
    assert np.allclose(beyond, 0, atol=1e-3)


def test_a_large_box_is_averaged_rather_than_picked_from():
    # every fourth column is white: taking the nearest ones would find none of them
    stripes = np.where(np.arange(896) % 4 == 0, 255, 0).astype(np.uint8)
    image = np.broadcast_to(stripes[None, :, None], (896, 896, 3)).copy()
    crop = levels(crop_image(image, np.array([448.3, 448.3]), 4.48))
    assert np.abs(crop[8:-8, 8:-8] - 255 / 4).max() < 1


def test_crops_are_mirrored_tinted_up_to_white_and_turned_counter_clockwise():
    image, center = picture(600, 600), np.array([300.3, 300.3])
    tint = (1.4, 1.0, 0.6)
    changes = (Change(), Change(flip=True), Change(channels=tint), Change(rotation=90.0))
    plain, *changed = (levels(crop_image(image, center, 1.12, change)) for change in changes)
    mirrored, tinted, turned = changed
    np.testing.assert_allclose(mirrored, plain[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(tinted, np.clip(plain.round() * tint, 0, 255), atol=1e-3)
    np.testing.assert_allclose(turned, np.rot90(plain), atol=1.5)


def chain(pose):
    """Where the joints go: directions of limbs of fixed rest vectors, world coordinates."""
    rest = np.random.default_rng(1).normal(size=(24, 3))
    left = [(j, f) for j, f in enumerate(FLIPPED_JOINTS) if f > j]
    for one, other in left:  # a body that is its own mirror image
        rest[other] = rest[one] * [-1, 1, 1]
    for joint, other in enumerate(FLIPPED_JOINTS):
        if joint == other:
            rest[joint, 0] = 0
    matrices = rotmats_of(torch.tensor(pose.reshape(1, 72), dtype=torch.float64))[0]
    world, places = [matrices[0]], [torch.zeros(3, dtype=torch.float64)]
    for joint in range(1, 24):
        parent = PARENTS[joint]
        places.append(places[parent] + world[parent] @ torch.tensor(rest[joint]))
        world.append(world[parent] @ matrices[joint])
    return torch.stack(places)


def test_the_body_is_mirrored_and_turned_as_its_picture():
    pose = np.random.default_rng(2).normal(scale=0.5, size=72).astype(np.float32)
    x, y, z = chain(pose).unbind(1)
    mirrored = torch.stack([-x, y, z], 1)[list(FLIPPED_JOINTS)]
    # image coordinates point right and down, so counter-clockwise on the screen takes x to -y
    turned = torch.stack([y, -x, z], 1)
    for change, expected in ((Change(flip=True), mirrored), (Change(rotation=90.0), turned)):
        found = chain(change_pose(pose, change))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_changes_are_drawn_as_published():
    generator = np.random.default_rng(0)
    drawn = [draw_change(generator) for _ in range(4000)]
    rotation = np.array([change.rotation for change in drawn])
    scale = np.array([change.scale for change in drawn])
    channels = np.array([change.channels for change in drawn])
    assert np.mean([change.flip for change in drawn]) == pytest.approx(0.5, abs=0.04)
    assert np.mean(rotation == 0) == pytest.approx(0.6, abs=0.04)
    assert np.abs(rotation).max() == 60
    # normal with deviation 30, cut at two deviations: 0.9545 of the mass inside
    assert np.std(rotation[rotation != 0]) == pytest.approx(28.8, abs=1.5)
    assert (scale.min(), scale.max()) == (0.75, 1.25)
    assert np.mean(scale == 1.25) == pytest.approx(0.159, abs=0.03)
    assert channels.min() >= 0.6
    assert channels.max() <= 1.4
    assert channels.mean() == pytest.approx(1, abs=0.02)
