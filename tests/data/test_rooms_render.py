"""The pictures of embedded rooms against closed forms and a ray tracer written as plain loops."""

import math

import numpy as np
import pytest

from depthbal.data.rooms import random_scene
from depthbal.data.rooms.render import Surface, illumination, lit, render, surface, trace
from depthbal.data.rooms.shapes import BOX, CYLINDER, SPHERE, Camera, Solid
from depthbal.data.rooms.stage import Light, Material, Scene
from depthbal.data.rooms.textures import PATTERNS
from tests.reference import trace_by_loops

WALL = Solid(BOX, (0.0, 0.0, 6.0), (8.0, 8.0, 1.0), 0)
CAMERA = Camera(60, 80, 80.0, (0.0, 0.0, 0.0))
CHECKS, PLAIN = Material("checker", (0.8,) * 3, (0.1,) * 3), Material("plain", (0.4,) * 3)


def test_a_wall_and_a_floor_have_the_depth_of_trigonometry():
    assert np.unique(trace(CAMERA, (WALL,))[0]).tolist() == [5.0]
    floor = Solid(BOX, (0.0, -0.5, 0.0), (500.0, 0.5, 500.0), 0)
    pitch, height, focal = 0.35, 1.6, 70.0
    depth, _ = trace(Camera(60, 80, focal, (0.0, height, 0.0), pitch=pitch, yaw=0.7), (floor,))
    ray = math.atan(24.5 / focal)  # angle between the axis and row 54 of 60
    expected = height / math.sin(pitch + ray) * math.cos(ray)
    np.testing.assert_allclose(depth[54, :], expected, rtol=1e-5)


# a turned camera before solids of all kinds, one of them partly behind it
EVERY_KIND = Scene(
    Camera(31, 41, 33.0, (0.1, 1.5, -0.2), yaw=0.2, pitch=0.3, roll=-0.1),
    (
        Solid(BOX, (0.0, -0.1, 0.0), (20.0, 0.1, 20.0), 0),
        Solid(BOX, (1.2, 0.6, 3.0), (0.5, 0.6, 0.3), 0, yaw=0.6),
        Solid(CYLINDER, (-0.4, 0.8, 2.5), (0.4, 0.8, 0.4), 0),
        Solid(SPHERE, (0.3, 1.4, 2.0), (0.35, 0.35, 0.35), 0),
        Solid(SPHERE, (9.0, 1.4, -9.0), (0.35, 0.35, 0.35), 0),
    ),
    (PLAIN,),
    (),
)


@pytest.mark.parametrize("number", [None, 0, 1, 2, 3])
def test_every_pixel_agrees_with_plain_loops(number):
    scene = EVERY_KIND
    if number is not None:
        scene = random_scene(np.random.default_rng(number), (9, 13))
    depth, index = trace(scene.camera, scene.solids)
    slow_depth, slow_index = trace_by_loops(scene.camera, scene.solids)
    np.testing.assert_allclose(depth, slow_depth, rtol=2e-4)
    # where two surfaces coincide, either may be seen
    assert (index == slow_index).mean() > 0.97


def test_no_ray_of_a_random_scene_escapes_and_normals_are_unit_vectors_towards_the_camera():
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


def picture(camera=CAMERA, solids=(WALL,), material=PLAIN, ambient=1.0, **settings):
    scene = Scene(camera, solids, (material,), (), ambient, **{"noise": 0.0, **settings})
    return render(scene, np.random.default_rng(0))[0].astype(float)


def edges_of(image):
    grey = image.mean(axis=2)[10]
    return np.flatnonzero(np.diff(grey > (grey.max() + grey.min()) / 2)) + 1


@pytest.mark.parametrize("away", [1.0, 2.0, 4.0])
def test_a_checkers_edges_project_where_a_quarter_metre_should(away):
    focal = 200.0
    edges = edges_of(picture(Camera(40, 400, focal, (0.0, 0.05, 5.0 - away)), material=CHECKS))
    expected = np.arange(-8, 8.25, 0.25) * focal / away + 200
    expected = expected[(expected > 2) & (expected < 398)]
    np.testing.assert_allclose(edges, expected, atol=0.51)


def test_patterns_are_seen_at_the_same_metric_size_on_every_face():
    cube = Solid(BOX, (0.0, 0.0, 3.0), (1.0, 1.0, 1.0), 0)
    for position, yaw in (((0.0, 0.1, 0.0), 0.0), ((3.0, 0.1, 3.0), -np.pi / 2)):
        edges = edges_of(picture(Camera(40, 300, 300.0, position, yaw), (cube, WALL), CHECKS))
        np.testing.assert_allclose(np.diff(edges), 0.25 * 300.0 / 2.0, atol=1.01)


def test_a_far_pattern_fades_to_its_mean_instead_of_flickering():
    wide = (Solid(BOX, (0.0, 0.0, 6.0), (500.0, 500.0, 1.0), 0),)
    near, far = (
        picture(Camera(60, 80, 20.0, (0.0, 0.0, 5.0 - away)), wide, CHECKS).std()
        for away in (1.0, 60.0)
    )
    assert near > 20
    assert far < 8


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_averages_what_a_pixel_covers(name):
    u, v = np.meshgrid(np.arange(0.0, 9.6, 0.00937), np.arange(0.0, 8.4, 0.00937))
    share, tone = PATTERNS[name](u.ravel(), v.ravel(), np.full(u.size, 1e-4))
    far_share, far_tone = PATTERNS[name](u.ravel(), v.ravel(), np.full(u.size, 3.7))
    assert share.min() > -1e-6
    assert share.max() < 1 + 1e-6
    assert (tone > 0).all()
    assert far_share.mean() == pytest.approx(share.mean(), abs=0.02)
    assert far_tone.mean() == pytest.approx(tone.mean(), abs=0.03)


def test_light_falls_off_with_the_square_of_the_distance_and_the_cosine():
    points = np.array([[0, 0, 0], [0, -5, 0], [5, 0, 0]], float).T
    normals = np.array([[0, 1, 0]] * 3, float).T
    found = Surface(points, normals, points[0], points[0], np.zeros(3, int))
    near, far, aside = illumination(found, Light((0.0, 5.0, 0.0), (1.0, 1.0, 1.0)))
    assert near / far == pytest.approx(4.0, rel=0.01)
    assert near / aside == pytest.approx(2 * 2**0.5, rel=0.01)  # half the law, and cos 45 degrees


def test_a_table_darkens_what_lies_under_it_and_nothing_else():
    table = Solid(BOX, (0.0, 0.75, 0.0), (0.5, 0.02, 0.5), 0)
    points = np.array([[0, 0, 0], [2, 0, 0], [0, 0.77, 0]], np.float32).T
    light = Light((0.0, 2.5, 0.0), (1.0, 1.0, 1.0))
    assert lit((table,), points, light).tolist() == [False, True, True]
    assert lit((table._replace(shadows=False),), points, light).all()


def test_depth_outside_the_sensors_range_is_no_depth():
    solids = (
        Solid(BOX, (0.0, 0.0, 13.0), (50.0, 50.0, 1.0), 0),
        Solid(SPHERE, (0.0, 0.0, 0.8), (0.3,) * 3, 0),
        Solid(BOX, (2.0, 0.0, 5.0), (1.0, 1.0, 1.0), 0),
    )
    scene = Scene(CAMERA, solids, (PLAIN,), (Light((0, 1, 0), (1,) * 3),))
    _, depth = render(scene, np.random.default_rng(0))
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0  # 12 m
    assert depth[30, 40] == 0  # 0.5 m
    assert depth[30, 78] == pytest.approx(4.0)


def test_exposure_makes_rooms_alike_and_noise_grows_with_the_light():
    for ambient in (0.05, 5.0):
        level = picture(ambient=ambient, brightness=0.5).mean() / 255
        assert level == pytest.approx(0.5, abs=0.01)
    dark, middle, bright = (
        picture(brightness=level, noise=0.03).std() / 255 for level in (0.15, 0.5, 0.85)
    )
    assert middle == pytest.approx(0.03, rel=0.05)
    assert dark < middle < bright
