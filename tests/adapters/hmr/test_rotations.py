"""Rotations in SPIN's forms, against published values and SciPy."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthbal.adapters.hmr.rotations import (
    axis_angle_to_rotmat,
    geodesic_distance,
    rot6d_to_rotmat,
    rotmat_to_axis_angle,
    rotmat_to_rot6d,
)

VECTORS = np.random.default_rng(0).normal(size=(5, 24, 3))


def test_axis_angle_gives_scipys_matrices_and_comes_back():
    rotmats = axis_angle_to_rotmat(torch.from_numpy(VECTORS))
    expected = Rotation.from_rotvec(VECTORS.reshape(-1, 3)).as_matrix().reshape(5, 24, 3, 3)
    np.testing.assert_allclose(rotmats.numpy(), expected, atol=1e-12)
    expected = Rotation.from_matrix(expected.reshape(-1, 3, 3)).as_rotvec().reshape(5, 24, 3)
    np.testing.assert_allclose(rotmat_to_axis_angle(rotmats).numpy(), expected, atol=1e-9)


def test_no_rotation_is_the_identity_with_a_finite_gradient():
    still = torch.zeros(1, 3, requires_grad=True)
    rotmat = axis_angle_to_rotmat(still)
    assert torch.equal(rotmat.detach(), torch.eye(3)[None])
    rotmat[0, 1, 0].backward()  # r21 of a small turn about z is its angle
    assert still.grad.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("vector", "numbers"),
    [([0.0, 0, 0], [1.0, 0, 0, 1, 0, 0]), ([torch.pi, 0, 0], [1.0, 0, 0, -1, 0, 0])],
)
def test_six_numbers_are_interleaved_as_spin_publishes_them(vector, numbers):
    rotmat = axis_angle_to_rotmat(torch.tensor(vector))
    torch.testing.assert_close(rotmat_to_rot6d(rotmat), torch.tensor(numbers), atol=1e-6, rtol=0)
    torch.testing.assert_close(rot6d_to_rotmat(torch.tensor(numbers)), rotmat, atol=1e-6, rtol=0)


def test_six_numbers_hold_any_rotation():
    rotmats = torch.from_numpy(Rotation.random(50, random_state=0).as_matrix())
    torch.testing.assert_close(rot6d_to_rotmat(rotmat_to_rot6d(rotmats)), rotmats)


def test_any_six_numbers_become_a_rotation_that_keeps_the_first_column():
    numbers = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotmats = rot6d_to_rotmat(numbers)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotmats @ rotmats.mT, eye)
    torch.testing.assert_close(torch.linalg.det(rotmats), torch.ones(50, dtype=torch.float64))
    first = numbers[:, [0, 2, 4]]
    torch.testing.assert_close(rotmats[:, :, 0], first / first.norm(dim=1, keepdim=True))


def test_geodesic_distance_is_the_angle_between_rotations():
    first, second = Rotation.random(40, random_state=1), Rotation.random(40, random_state=2)
    found = geodesic_distance(
        torch.from_numpy(first.as_matrix()), torch.from_numpy(second.as_matrix())
    )
    np.testing.assert_allclose(found.numpy(), (first.inv() * second).magnitude(), atol=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 3.0, np.pi])
def test_geodesic_distance_holds_at_both_ends_in_float32(angle):
    rotmat = axis_angle_to_rotmat(torch.tensor([0.0, angle, 0.0]))
    tolerance = 1e-9 + 1e-5 * angle if angle < 3.1 else 3e-3
    assert geodesic_distance(rotmat, torch.eye(3)).item() == pytest.approx(angle, abs=tolerance)
