"""Depth of the embedded rooms against closed forms and a ray tracer written as plain loops."""

import math

import numpy as np
import pytest

from depthbal.data.rooms.generate import random_scene
from depthbal.data.rooms.render import surface, trace
from depthbal.data.rooms.shapes import BOX, CYLINDER, SPHERE, Camera, Solid
from tests.reference import trace_by_loops

ORIGIN = (0.0, 0.0, 0.0)
PIXEL_BELOW = 24.5  # rows from the horizon to the centre of row 54 of 60


def test_a_wall_across_the_axis_has_one_depth_everywhere() -> None:
    wall = Solid(BOX, (0.0, 0.0, 6.25), (99.0, 99.0, 0.5), 0)
    depth, index = trace(Camera(45, 61, 50.0, ORIGIN), (wall,))
    assert np.unique(depth).tolist() == [5.75]
    assert (index == 0).all()


def test_the_floor_below_the_horizon_is_height_times_focal_over_rows() -> None:
    floor = Solid(BOX, (0.0, -0.5, 0.0), (500.0, 0.5, 500.0), 0)
    camera = Camera(60, 80, 70.0, (0.0, 1.3, 0.0))
    depth, _ = trace(camera, (floor,))
    rows = np.arange(30, 60) + 0.5 - 30
    np.testing.assert_allclose(depth[30:], np.repeat(1.3 * 70 / rows[:, None], 80, 1), rtol=1e-5)
    assert np.isinf(depth[:30]).all()


def test_a_pitched_camera_sees_the_floor_where_trigonometry_says() -> None:
    floor = Solid(BOX, (0.0, -0.5, 0.0), (500.0, 0.5, 500.0), 0)
    pitch, height, focal = 0.35, 1.6, 70.0
    depth, _ = trace(Camera(60, 80, focal, (0.0, height, 0.0), pitch=pitch, yaw=0.7), (floor,))
    ray = math.atan(PIXEL_BELOW / focal)  # angle between the axis and the pixel's row
    expected = height / math.sin(pitch + ray) * math.cos(ray)
    np.testing.assert_allclose(depth[54, :], expected, rtol=1e-5)


def test_a_sphere_has_the_depth_of_its_equation() -> None:
    focal, away, radius = 64.0, 4.0, 1.25
    ball = Solid(SPHERE, (0.0, 0.0, away), (radius,) * 3, 0)
    depth, _ = trace(Camera(65, 65, focal, ORIGIN), (ball,))
    a = (np.arange(65) + 0.5 - 32.5) / focal
    square = 1 + a[:, None] ** 2 + a[None, :] ** 2  # |ray|^2; |t ray - (0, 0, away)| = radius
    inside = away**2 - square * (away**2 - radius**2)
    expected = np.full((65, 65), np.inf)
    expected[inside >= 0] = ((away - np.sqrt(np.maximum(inside, 0))) / square)[inside >= 0]
    clear = np.abs(inside) > 1e-3  # at the very rim float32 may decide either way
    np.testing.assert_allclose(depth[clear], expected[clear], rtol=1e-4)
    assert depth[32, 32] == pytest.approx(away - radius, abs=1e-5)


def test_an_upright_cylinder_has_the_depth_of_its_equation_and_a_flat_top() -> None:
    focal, away, radius, height = 90.0, 3.0, 0.5, 1.0
    post = Solid(CYLINDER, (0.0, height / 2, away), (radius, height / 2, radius), 0)
    depth, _ = trace(Camera(90, 91, focal, (0.0, 1.5, 0.0), pitch=0.0), (post,))
    a = (np.arange(91) + 0.5 - 45.5) / focal
    inside = away**2 - (1 + a**2) * (away**2 - radius**2)
    side = (away - np.sqrt(np.maximum(inside, 0))) / (1 + a**2)
    middle = np.flatnonzero(inside > 1e-2)
    row = 75  # meets the side: 1.5 - 2.5 * 30.5 / 90 is about 0.65
    np.testing.assert_allclose(depth[row, middle], side[middle], rtol=1e-5)
    top = 0.5 * focal / (61.5 - 45)  # row 61 comes down to the top's height at this depth
    assert away - radius < top < away + radius
    assert depth[61, 45] == pytest.approx(top, rel=1e-5)


@pytest.mark.parametrize("number", range(4))
def test_every_pixel_of_a_random_scene_agrees_with_plain_loops(number: int) -> None:
    scene = random_scene(np.random.default_rng(number), (9, 13))
    depth, index = trace(scene.camera, scene.solids)
    slow_depth, slow_index = trace_by_loops(scene.camera, scene.solids)
    np.testing.assert_allclose(depth, slow_depth, rtol=2e-4)
    # where two surfaces coincide, either may be seen
    assert (index == slow_index).mean() > 0.97


def test_no_ray_of_a_random_scene_escapes() -> None:
    for number in range(60):
        scene = random_scene(np.random.default_rng(1000 + number), (24, 32))
        depth, _ = trace(scene.camera, scene.solids)
        assert np.isfinite(depth).all(), number


def test_normals_are_unit_vectors_towards_the_camera() -> None:
    for number in range(10):
        scene = random_scene(np.random.default_rng(number), (24, 32))
        rays = scene.camera.rays()
        depth, index = trace(scene.camera, scene.solids, rays)
        points = np.array(scene.camera.position, np.float32)[:, None, None] + rays * depth
        found = surface(scene.solids, index.ravel(), points.reshape(3, -1))
        np.testing.assert_allclose((found.normals**2).sum(0), 1.0, atol=1e-5)
        # a ray that grazes an edge may be given the neighbouring face
        assert ((found.normals * rays.reshape(3, -1)).sum(0) < 1e-3).mean() > 0.995
