"""Depth of the embedded rooms against closed forms and a ray tracer written as plain loops."""

import math

import numpy as np
import pytest

from depthbal.data.rooms import random_scene
from depthbal.data.rooms.render import surface, trace
from depthbal.data.rooms.shapes import BOX, CYLINDER, SPHERE, Camera, Solid
from tests.reference import trace_by_loops


def test_a_wall_across_the_axis_has_one_depth_everywhere() -> None:
    wall = Solid(BOX, (0.0, 0.0, 6.25), (99.0, 99.0, 0.5), 0)
    depth, index = trace(Camera(45, 61, 50.0, (0.0, 0.0, 0.0)), (wall,))
    assert np.unique(depth).tolist() == [5.75]
    assert (index == 0).all()


def test_a_pitched_camera_sees_the_floor_where_trigonometry_says() -> None:
    floor = Solid(BOX, (0.0, -0.5, 0.0), (500.0, 0.5, 500.0), 0)
    pitch, height, focal = 0.35, 1.6, 70.0
    depth, _ = trace(Camera(60, 80, focal, (0.0, height, 0.0), pitch=pitch, yaw=0.7), (floor,))
    ray = math.atan(24.5 / focal)  # angle between the axis and row 54 of 60
    expected = height / math.sin(pitch + ray) * math.cos(ray)
    np.testing.assert_allclose(depth[54, :], expected, rtol=1e-5)


def test_yaw_turns_to_the_right() -> None:
    np.testing.assert_allclose(
        Camera(2, 2, 1.0, (0, 0, 0), math.pi / 2).axes()[2], (1, 0, 0), atol=1e-12
    )


def every_kind() -> tuple[Camera, tuple[Solid, ...]]:
    """A turned camera before solids of all kinds, one of them partly behind it."""
    solids = (
        Solid(BOX, (0.0, -0.1, 0.0), (20.0, 0.1, 20.0), 0),
        Solid(BOX, (1.2, 0.6, 3.0), (0.5, 0.6, 0.3), 0, yaw=0.6),
        Solid(CYLINDER, (-0.4, 0.8, 2.5), (0.4, 0.8, 0.4), 0),
        Solid(SPHERE, (0.3, 1.4, 2.0), (0.35, 0.35, 0.35), 0),
        Solid(SPHERE, (9.0, 1.4, -9.0), (0.35, 0.35, 0.35), 0),
    )
    return Camera(31, 41, 33.0, (0.1, 1.5, -0.2), yaw=0.2, pitch=0.3, roll=-0.1), solids


@pytest.mark.parametrize("number", [None, 0, 1, 2, 3])
def test_every_pixel_agrees_with_plain_loops(number: int | None) -> None:
    if number is None:
        camera, solids = every_kind()
    else:
        scene = random_scene(np.random.default_rng(number), (9, 13))
        camera, solids = scene.camera, scene.solids
    depth, index = trace(camera, solids)
    slow_depth, slow_index = trace_by_loops(camera, solids)
    np.testing.assert_allclose(depth, slow_depth, rtol=2e-4)
    # where two surfaces coincide, either may be seen
    assert (index == slow_index).mean() > 0.97


def test_no_ray_of_a_random_scene_escapes_and_normals_are_unit_vectors_towards_the_camera() -> None:
    for number in range(60):
        scene = random_scene(np.random.default_rng(1000 + number), (24, 32))
        rays = scene.camera.rays()
        depth, index = trace(scene.camera, scene.solids, rays)
        assert np.isfinite(depth).all(), number
        points = np.array(scene.camera.position, np.float32)[:, None, None] + rays * depth
        found = surface(scene.solids, index.ravel(), points.reshape(3, -1))
        np.testing.assert_allclose((found.normals**2).sum(0), 1.0, atol=1e-5)
        # a ray that grazes an edge may be given the neighbouring face
        assert ((found.normals * rays.reshape(3, -1)).sum(0) < 1e-3).mean() > 0.99
