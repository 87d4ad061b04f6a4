"""Rotations in SPIN's forms, against published values and SciPy."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthbal.adapters.hmr.rotations import rot6d_to_rotmat, rotmats_of

POSES = np.random.default_rng(0).normal(size=(5, 72))


def test_axis_angle_gives_scipys_matrices():
    expected = Rotation.from_rotvec(POSES.reshape(-1, 3)).as_matrix().reshape(5, 24, 3, 3)
    np.testing.assert_allclose(rotmats_of(torch.from_numpy(POSES)).numpy(), expected, atol=1e-12)


def test_no_rotation_is_the_identity_with_a_finite_gradient():
    still = torch.zeros(1, 72, requires_grad=True)
    rotmats = rotmats_of(still)
    assert torch.equal(rotmats.detach(), torch.eye(3).expand(1, 24, 3, 3))
    rotmats[0, 0, 1, 0].backward()  # r21 of a small turn about z is its angle
    assert still.grad[0, :4].tolist() == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("vector", "numbers"),
    [([0.0, 0, 0], [1.0, 0, 0, 1, 0, 0]), ([torch.pi, 0, 0], [1.0, 0, 0, -1, 0, 0])],
)
def test_six_numbers_are_interleaved_as_spin_publishes_them(vector, numbers):
    rotmat = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix()).float()
    torch.testing.assert_close(rot6d_to_rotmat(torch.tensor(numbers)), rotmat, atol=1e-6, rtol=0)


def test_six_numbers_hold_any_rotation():
    rotmats = torch.from_numpy(Rotation.random(50, random_state=0).as_matrix())
    columns = rotmats[:, :, :2].flatten(1)  # r11, r12, r21, r22, r31, r32
    torch.testing.assert_close(rot6d_to_rotmat(columns), rotmats)


def test_any_six_numbers_become_a_rotation_that_keeps_the_first_column():
    numbers = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotmats = rot6d_to_rotmat(numbers)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotmats @ rotmats.mT, eye)
    torch.testing.assert_close(torch.linalg.det(rotmats), torch.ones(50, dtype=torch.float64))
    first = numbers[:, [0, 2, 4]]
    torch.testing.assert_close(rotmats[:, :, 0], first / first.norm(dim=1, keepdim=True))
