"""What the pictures of embedded rooms show: patterns of metric size, light, shadow, exposure."""

import numpy as np
import pytest

from depthbal.data.rooms.render import Surface, illumination, lit, render
from depthbal.data.rooms.shapes import BOX, SPHERE, Camera, Solid
from depthbal.data.rooms.stage import Light, Material, Scene
from depthbal.data.rooms.textures import PATTERNS, scatter

WALL = Solid(BOX, (0.0, 0.0, 6.0), (8.0, 8.0, 1.0), 0)
CAMERA = Camera(60, 80, 80.0, (0.0, 0.0, 0.0))


def picture(
    material: Material, camera: Camera = CAMERA, solids: tuple[Solid, ...] = (WALL,)
) -> np.ndarray:
    scene = Scene(camera, solids, (material,), (), ambient=1.0, noise=0.0)
    return render(scene, np.random.default_rng(0))[0].astype(float)


@pytest.mark.parametrize("away", [1.0, 2.0, 4.0])
def test_a_checkers_edges_project_where_a_quarter_metre_should(away: float) -> None:
    focal = 200.0
    camera = Camera(40, 400, focal, (0.0, 0.05, 5.0 - away))
    grey = picture(Material("checker", (0.8,) * 3, (0.1,) * 3), camera).mean(axis=2)[10]
    middle = (grey.max() + grey.min()) / 2
    edges = np.flatnonzero(np.diff(grey > middle)) + 1  # between pixel centres, in columns
    expected = np.arange(-8, 8.25, 0.25) * focal / away + 200
    expected = expected[(expected > 2) & (expected < 398)]
    np.testing.assert_allclose(edges, expected, atol=0.51)


def test_patterns_are_seen_at_the_same_metric_size_on_every_face() -> None:
    cube = Solid(BOX, (0.0, 0.0, 3.0), (1.0, 1.0, 1.0), 0)
    focal, checks = 300.0, Material("checker", (0.8,) * 3, (0.1,) * 3)
    views = [
        Camera(40, 300, focal, (0.0, 0.1, 0.0)),
        Camera(40, 300, focal, (3.0, 0.1, 3.0), yaw=-np.pi / 2),
    ]
    for camera in views:
        grey = picture(checks, camera, (cube, WALL)).mean(axis=2)[10]
        edges = np.flatnonzero(np.diff(grey > (grey.max() + grey.min()) / 2))
        np.testing.assert_allclose(np.diff(edges), 0.25 * focal / 2.0, atol=1.01)


def test_a_far_pattern_fades_to_its_mean_instead_of_flickering() -> None:
    contrast = []
    for away in (1.0, 60.0):
        camera = Camera(60, 80, 20.0, (0.0, 0.0, 5.0 - away))
        wide = (Solid(BOX, (0.0, 0.0, 6.0), (500.0, 500.0, 1.0), 0),)
        contrast.append(picture(Material("checker", (0.8,) * 3, (0.1,) * 3), camera, wide).std())
    assert contrast[0] > 20
    assert contrast[1] < 8


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_averages_what_a_pixel_covers(name: str) -> None:
    u, v = np.meshgrid(np.arange(0.0, 9.6, 0.00937), np.arange(0.0, 8.4, 0.00937))
    share, tone = PATTERNS[name](u.ravel(), v.ravel(), np.full(u.size, 1e-4))
    far_share, far_tone = PATTERNS[name](u.ravel(), v.ravel(), np.full(u.size, 3.7))
    assert share.min() > -1e-6
    assert share.max() < 1 + 1e-6
    assert (tone > 0).all()
    assert far_share.mean() == pytest.approx(share.mean(), abs=0.02)
    assert far_tone.mean() == pytest.approx(tone.mean(), abs=0.03)


def test_scattered_numbers_are_uniform_and_uncorrelated_between_neighbours() -> None:
    i, j = np.meshgrid(np.arange(-100.0, 100.0), np.arange(-100.0, 100.0))
    numbers = scatter(i, j)
    np.testing.assert_allclose(np.histogram(numbers, 10, (0, 1))[0] / numbers.size, 0.1, atol=0.01)
    for axis in (0, 1):
        one, other = np.delete(numbers, 0, axis), np.delete(numbers, -1, axis)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03


def test_light_falls_off_with_the_square_of_the_distance_and_the_cosine() -> None:
    points = np.array([[0, 0, 0], [0, -5, 0], [5, 0, 0]], float).T
    normals = np.array([[0, 1, 0]] * 3, float).T
    found = Surface(points, normals, points[0], points[0], np.zeros(3, int))
    near, far, aside = illumination(found, Light((0.0, 5.0, 0.0), (1.0, 1.0, 1.0)))
    assert near / far == pytest.approx(4.0, rel=0.01)
    assert near / aside == pytest.approx(2 * 2**0.5, rel=0.01)  # half the law, and cos 45 degrees


def test_a_table_darkens_what_lies_under_it_and_nothing_else() -> None:
    table = Solid(BOX, (0.0, 0.75, 0.0), (0.5, 0.02, 0.5), 0)
    points = np.array([[0, 0, 0], [2, 0, 0], [0, 0.77, 0]], np.float32).T
    light = Light((0.0, 2.5, 0.0), (1.0, 1.0, 1.0))
    assert lit((table,), points, light).tolist() == [False, True, True]
    assert lit((table._replace(shadows=False),), points, light).all()


def test_depth_outside_the_sensors_range_is_no_depth() -> None:
    solids = (
        Solid(BOX, (0.0, 0.0, 13.0), (50.0, 50.0, 1.0), 0),
        Solid(SPHERE, (0.0, 0.0, 0.8), (0.3,) * 3, 0),
        Solid(BOX, (2.0, 0.0, 5.0), (1.0, 1.0, 1.0), 0),
    )
    scene = Scene(CAMERA, solids, (Material("plain", (0.5,) * 3),), (Light((0, 1, 0), (1,) * 3),))
    _, depth = render(scene, np.random.default_rng(0))
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0  # 12 m
    assert depth[30, 40] == 0  # 0.5 m
    assert depth[30, 78] == pytest.approx(4.0)


def test_exposure_makes_bright_and_dark_rooms_alike() -> None:
    levels = []
    for ambient in (0.05, 5.0):
        scene = Scene(CAMERA, (WALL,), (Material("plain", (0.4,) * 3),), (), ambient, 0.5, 0.0)
        levels.append(render(scene, np.random.default_rng(0))[0].mean() / 255)
    assert levels == pytest.approx([0.5, 0.5], abs=0.01)


def test_noise_has_the_given_size_and_grows_with_the_light() -> None:
    spread = []
    for brightness in (0.15, 0.5, 0.85):
        look = (Material("plain", (0.4,) * 3),)
        scene = Scene(CAMERA, (WALL,), look, (), 1.0, brightness, 0.03)
        spread.append(render(scene, np.random.default_rng(0))[0].std() / 255)
    assert spread[1] == pytest.approx(0.03, rel=0.05)
    assert spread[0] < spread[1] < spread[2]
