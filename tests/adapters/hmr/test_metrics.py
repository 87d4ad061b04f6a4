"""Errors of bodies against loops, NumPy's SVD and their invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from depthbal.adapters.hmr.metrics import mpjpe, mpvpe, pa_mpjpe


def _points(samples, points=14, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(samples, points, 3)))


def _aligned_error(pred, target):
    """One sample's Procrustes error in mm, by Umeyama's formula with NumPy's SVD."""
    p, t = pred - pred.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(p.T @ t)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    rotation = vt.T @ sign @ u.T
    scale = (s * np.diag(sign)).sum() / (p**2).sum()
    return 1000 * np.linalg.norm(scale * p @ rotation.T - t, axis=1).mean()


def test_mpjpe_and_mpvpe_are_mean_distances_in_millimetres():
    preds, target = _points(3, 5), _points(3, 5, seed=1)
    expected = [
        1000 * sum(float((p - t).square().sum().sqrt()) for p, t in zip(a, b, strict=True)) / 5
        for a, b in zip(preds, target, strict=True)
    ]
    np.testing.assert_allclose(mpjpe(preds, target).numpy(), expected)
    np.testing.assert_allclose(mpvpe(preds, target).numpy(), expected)


def test_pa_mpjpe_equals_umeyamas_formula_reflections_included():
    target = _points(40)
    preds = target + 0.3 * _points(40, seed=1)
    preds[::2, :, 0] *= -1  # the best orthogonal matrix would be a reflection
    expected = [_aligned_error(p, t) for p, t in zip(preds.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(pa_mpjpe(preds, target).numpy(), expected, rtol=1e-9)


def test_no_similarity_transform_has_a_smaller_squared_error_than_the_alignment():
    pred, target = _points(1)[0].numpy(), _points(1, seed=1)[0].numpy()

    def moved(x):
        return np.exp(x[6]) * Rotation.from_rotvec(x[:3]).apply(pred) + x[3:6]

    starts = np.random.default_rng(0).normal(size=(8, 7))
    best = min(
        (minimize(lambda x: ((moved(x) - target) ** 2).sum(), start) for start in starts),
        key=lambda result: result.fun,
    )
    expected = 1000 * np.linalg.norm(moved(best.x) - target, axis=1).mean()
    found = pa_mpjpe(torch.from_numpy(pred)[None], torch.from_numpy(target)[None])
    assert found.item() == pytest.approx(expected, rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.01, 100),
    shift=st.floats(-10, 10),
    points=st.integers(4, 20),
)
def test_pa_mpjpe_does_not_change_under_similarity_transforms_of_the_prediction(
    seed, scale, shift, points
):
    target, preds = _points(2, points, seed), _points(2, points, seed + 1)
    turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    moved = scale * preds @ turn.T + shift
    torch.testing.assert_close(pa_mpjpe(moved, target), pa_mpjpe(preds, target), rtol=1e-6, atol=0)
    same = pa_mpjpe(scale * target @ turn.T + shift, target)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-6, rtol=0)


def test_a_mirrored_body_is_not_a_perfect_one():
    target = _points(1)
    assert pa_mpjpe(target * torch.tensor([-1.0, 1, 1]), target).item() > 100


def test_pa_mpjpe_of_float32_input_is_as_exact_as_the_input():
    target, preds = _points(20), _points(20, seed=1)
    torch.testing.assert_close(
        pa_mpjpe(preds.float(), target.float()), pa_mpjpe(preds, target), rtol=1e-5, atol=0
    )


def test_a_prediction_without_extent_is_moved_to_the_centre():
    target = _points(1)
    expected = 1000 * (target - target.mean(dim=1, keepdim=True)).norm(dim=-1).mean()
    assert pa_mpjpe(torch.ones(1, 14, 3), target).item() == pytest.approx(expected.item())


def test_other_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"\(1, 14, 3\) and \(1, 17, 3\)"):
        mpjpe(torch.zeros(1, 14, 3), torch.zeros(1, 17, 3))
