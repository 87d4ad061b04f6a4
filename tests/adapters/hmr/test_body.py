"""Bodies against smplx and plain loops; errors against NumPy, SciPy and their invariances."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthbal.adapters.hmr.body import (
    BodyModel,
    Meshes,
    geodesic_distance,
    mpjpe,
    pa_mpjpe,
    rotmats_of,
)
from depthbal.adapters.hmr.synthetic import synthetic_smpl
from depthbal.errors import DataError


def draw(samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(samples, 72, dtype=torch.float64, generator=generator)
    betas = 2 * torch.randn(samples, 10, dtype=torch.float64, generator=generator)
    return rotmats_of(pose), betas


def test_vertices_equal_those_of_smplx():
    found = BodyModel(synthetic_smpl(vertices=64)).double()(*draw(5))
    expected = [  # by smplx.SMPL (0.1.28, float64) of the same arrays
        [-0.015698696883949, 0.058300118813534, 0.010746155279833],
        [-0.090848839605974, 0.007032845368720, -0.045693278253880],
        [-0.035213999502706, -0.477028160136395, 0.099278751248503],
    ]
    np.testing.assert_allclose(found[4, [0, 31, 63]].numpy(), expected, atol=1e-7)


def test_a_body_stays_out_of_checkpoints_and_takes_ten_shapes_of_many():
    arrays, inputs = synthetic_smpl(vertices=24), draw(1)
    body = BodyModel(arrays).double()
    assert body.state_dict() == {}  # SMPL's licence forbids passing the arrays on
    arrays["shapedirs"] = np.concatenate([arrays["shapedirs"], np.ones((24, 3, 290))], axis=2)
    torch.testing.assert_close(BodyModel(arrays).double()(*inputs), body(*inputs))


def test_evaluation_joints_are_fourteen_seen_from_the_pelvis(root):
    meshes = Meshes(root).double()
    vertices = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 64, 3)))
    found = meshes.joints(vertices)
    assert found.shape == (2, 14, 3)
    for sample in range(2):
        places = meshes.regressor @ vertices[sample]
        for k, joint in enumerate([6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]):
            torch.testing.assert_close(found[sample, k], places[joint] - places[0])


def test_true_bodies_have_no_error_but_that_of_neutral_joints_for_a_gendered_truth(root):
    (rotmats, betas), gender = draw(6), torch.tensor([0, 1, -1, 0, 1, -1])
    bodies = rotmats.float(), betas.float()
    errors, distances = Meshes(root, "gendered")(bodies, bodies, gender)
    # predictions are neutral for the joints, and of the truth's gender for the vertices
    assert (errors["mpjpe"] > 1).tolist() == (gender >= 0).tolist()
    assert errors["mpvpe"].max() < 1e-3
    same, neutral = Meshes(root, "neutral")(bodies, bodies, gender)
    assert max(error.max() for error in same.values()) < 1e-3
    assert (distances["vertex"] == neutral["vertex"]).tolist() == (gender < 0).tolist()
    vertices = Meshes(root).neutral(*bodies) - Meshes(root).mean_vertices
    expected = 1000 * vertices.norm(dim=-1).mean(dim=1).double()
    torch.testing.assert_close(neutral["vertex"], expected)


def test_bodies_and_regressor_of_other_sizes_are_named(root):
    np.savez(root / "smpl" / "SMPL_MALE.npz", **synthetic_smpl(70))
    with pytest.raises(DataError, match=r"SMPL_MALE\.npz: 'v_template' has shape \(70, 3\), exp"):
        Meshes(root, "gendered")
    np.save(root / "J_regressor_h36m.npy", np.zeros((17, 65)))
    with pytest.raises(DataError, match=r"h36m\.npy: 'regressor'.*\(17, 65\), exp.*\(17, 64\)"):
        Meshes(root)


# ---- errors ----


def points(samples, count=14, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(samples, count, 3)))


def aligned_error(pred, target):
    """One sample's Procrustes error in mm, by Umeyama's formula with NumPy's SVD."""
    p, t = pred - pred.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(p.T @ t)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    scale = (s * np.diag(sign)).sum() / (p**2).sum()
    return 1000 * np.linalg.norm(scale * p @ (vt.T @ sign @ u.T).T - t, axis=1).mean()


def test_mpjpe_is_the_mean_distance_in_millimetres():
    preds, target = points(3, 5), points(3, 5, seed=1)
    expected = 1000 * np.linalg.norm(preds - target, axis=2).mean(1)
    np.testing.assert_allclose(mpjpe(preds, target).numpy(), expected)


def test_pa_mpjpe_equals_umeyamas_formula_reflections_included():
    target = points(40)
    preds = target + 0.3 * points(40, seed=1)
    preds[::2, :, 0] *= -1  # the best orthogonal matrix would be a reflection
    expected = [aligned_error(p, t) for p, t in zip(preds.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(pa_mpjpe(preds, target).numpy(), expected, rtol=1e-9)
    torch.testing.assert_close(
        pa_mpjpe(preds.float(), target.float()), pa_mpjpe(preds, target), rtol=1e-5, atol=0
    )
    alike = 1000 * (target - target.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)
    torch.testing.assert_close(pa_mpjpe(torch.ones(40, 14, 3), target), alike)  # no extent


def test_geodesic_distance_is_the_mean_angle_over_joints_up_to_both_ends_in_float32():
    turns, mean = Rotation.random(48, random_state=0), Rotation.random(24, random_state=1)
    matrices = torch.from_numpy(turns.as_matrix()).reshape(2, 24, 3, 3)
    found = geodesic_distance(matrices, torch.from_numpy(mean.as_matrix()))
    for sample in range(2):
        angles = [(turns[24 * sample + j].inv() * mean[j]).magnitude() for j in range(24)]
        assert found[sample].item() == pytest.approx(sum(angles) / 24)
    for angle, tolerance in {0.0: 1e-9, 1e-5: 1e-9, 3.0: 3e-5, np.pi: 3e-3}.items():
        turned = torch.from_numpy(Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()).float()
        one = geodesic_distance(turned.expand(1, 24, 3, 3), torch.eye(3).expand(24, 3, 3))
        assert one.item() == pytest.approx(angle, abs=tolerance)
