"""The pinhole camera of the embedded rooms: rays, projection and the windows that save work."""

import math

import numpy as np
import pytest

from depthbal.data.rooms.shapes import Camera

TURNED = Camera(61, 83, 70.0, (0.3, 1.4, -0.2), yaw=0.5, pitch=0.3, roll=-0.1)


def test_the_axes_are_orthonormal_and_down_points_down() -> None:
    axes = np.array(TURNED.axes())
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert axes[1, 1] < 0  # world y points up
    assert axes[2] @ (0, 1, 0) == pytest.approx(-math.sin(0.3))


@pytest.mark.parametrize(("yaw", "seen"), [(0.0, (0, 0, 1)), (math.pi / 2, (1, 0, 0))])
def test_yaw_turns_to_the_right(yaw: float, seen: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(Camera(2, 2, 1.0, (0, 0, 0), yaw=yaw).axes()[2], seen, atol=1e-12)


def test_a_ray_of_any_pixel_has_depth_one() -> None:
    rays = TURNED.rays().reshape(3, -1).astype(np.float64)
    depth = np.array(TURNED.axes()[2]) @ rays
    np.testing.assert_allclose(depth, 1.0, atol=1e-6)


def test_a_point_on_a_pixels_ray_lies_in_the_window_around_that_pixel() -> None:
    rays = TURNED.rays()
    for row, column in [(0, 0), (30, 41), (60, 82), (7, 70)]:
        point = np.array(TURNED.position) + 3.0 * rays[:, row, column]
        window = TURNED.windows(point[None, None])[0]
        assert window is not None
        rows, columns = window
        assert rows.start <= row < rows.stop
        assert columns.start <= column < columns.stop
        assert rows.stop - rows.start <= 4
        assert columns.stop - columns.start <= 4


def test_hulls_out_of_view_have_no_window_and_hulls_around_the_camera_the_whole_image() -> None:
    camera = Camera(20, 30, 25.0, (0.0, 0.0, 0.0))
    behind = [(x, y, -1.0 - z) for x in (-1, 1) for y in (-1, 1) for z in (0, 1)]
    aside = [(50.0 + x, y, 5.0 + z) for x in (-1, 1) for y in (-1, 1) for z in (0, 1)]
    around = [(9 * x, 9 * y, 9 * z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    whole = (slice(0, 20), slice(0, 30))
    assert camera.windows(np.array([behind, aside, around], float)) == [None, None, whole]
