"""SPIN's regressor against a plain re-computation of its published structure."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from depthbal.adapters.hmr.head import MeanParams, SpinHead, load_mean_params, zero_mean_params
from depthbal.errors import DataError

NAMES = {
    *(f"{layer}.{part}" for layer in ("fc1", "fc2", "decpose", "decshape", "deccam")
      for part in ("weight", "bias")),
    "init_pose", "init_shape", "init_cam",
}  # fmt: skip


def _mean():
    generator = torch.Generator().manual_seed(1)
    return MeanParams(*(torch.randn(size, generator=generator) for size in (144, 10, 3)))


def _published(state, features, masks=None):
    """Recompute SPIN's models/hmr.py from nothing but its named parameters."""
    pose, shape, cam = state["init_pose"], state["init_shape"], state["init_cam"]
    pose, shape, cam = (torch.cat([x] * len(features)) for x in (pose, shape, cam))
    for step in range(3):
        hidden = torch.cat([features, pose, shape, cam], 1)
        for layer, name in enumerate(("fc1", "fc2")):
            hidden = functional.linear(hidden, state[f"{name}.weight"], state[f"{name}.bias"])
            if masks is not None:
                hidden = hidden * masks[2 * step + layer]
        pose = pose + hidden @ state["decpose.weight"].T + state["decpose.bias"]
        shape = shape + hidden @ state["decshape.weight"].T + state["decshape.bias"]
        cam = cam + hidden @ state["deccam.weight"].T + state["deccam.bias"]
    rotmats = torch.zeros(len(features), 24, 3, 3, dtype=features.dtype)
    for sample in range(len(features)):
        for joint in range(24):
            a = pose[sample, 6 * joint : 6 * joint + 6]
            first, second = a[[0, 2, 4]], a[[1, 3, 5]]
            x = first / math.sqrt(sum(v * v for v in first.tolist()))
            y = second - x * (x * second).sum()
            y = y / math.sqrt(sum(v * v for v in y.tolist()))
            z = torch.stack(
                [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]]
            )
            rotmats[sample, joint] = torch.stack([x, y, z], dim=1)
    return rotmats, shape, cam


def test_names_and_sizes_are_spins():
    head = SpinHead()
    assert set(head.state_dict()) == NAMES
    assert head.fc1.weight.shape == (1024, 2205)
    # 3 469 469 in all, measured on SPIN's own model
    assert sum(value.numel() for value in head.parameters()) == 3_469_469
    assert sum(value.numel() for value in head.decpose.parameters()) == 147_600


@pytest.mark.parametrize("features", [2048, 32])
def test_output_equals_the_published_structure(features):
    torch.manual_seed(0)
    head = SpinHead(_mean(), features=features).double().eval()
    # large decoders, so that each of the three iterations matters
    for layer in (head.decpose, head.decshape, head.deccam):
        torch.nn.init.normal_(layer.weight, std=0.05)
    inputs = torch.randn(3, features, dtype=torch.float64)
    found, expected = head(inputs), _published(head.state_dict(), inputs)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    once = _published({**head.state_dict(), "fc2.weight": head.fc2.weight * 0}, inputs)
    assert not torch.allclose(found.betas, once[1])


def test_dropout_of_one_half_follows_both_layers_in_training_only():
    torch.manual_seed(0)
    head = SpinHead(_mean(), features=8).double().train()
    inputs = torch.randn(2, 8, dtype=torch.float64)
    torch.manual_seed(5)
    found = head(inputs)
    torch.manual_seed(5)
    masks = [
        functional.dropout(torch.ones(2, 1024, dtype=torch.float64), 0.5) for _ in range(2 * 3)
    ]
    torch.testing.assert_close(tuple(found), _published(head.state_dict(), inputs, masks))
    assert torch.equal(head.eval()(inputs).betas, head(inputs).betas)


def test_a_new_head_starts_at_the_mean():
    mean = zero_mean_params()
    rotmats, betas, cam = SpinHead(mean).eval()(torch.zeros(2, 2048))
    torch.testing.assert_close(rotmats, torch.eye(3).expand(2, 24, 3, 3), atol=0.15, rtol=0)
    assert betas.abs().max() < 0.2
    torch.testing.assert_close(cam, torch.tensor([[0.9, 0, 0]] * 2), atol=0.15, rtol=0)
    # xavier: uniform within gain sqrt(6 / (in + out))
    limit = 0.01 * math.sqrt(6 / (1024 + 144))
    weight = SpinHead().decpose.weight
    assert limit * 0.99 < weight.abs().max() <= limit


def test_mean_params_are_read_as_float32_and_checked(tmp_path):
    path = tmp_path / "smpl_mean_params.npz"
    arrays = {"pose": np.arange(144.0), "shape": np.zeros(10), "cam": np.array([0.9, 0, 0])}
    np.savez(path, cam=arrays["cam"], shape=arrays["shape"], pose=arrays["pose"])
    mean = load_mean_params(path)
    assert mean.pose.tolist() == list(range(144))
    assert mean.pose.dtype == mean.shape.dtype == mean.cam.dtype == torch.float32
    np.savez(path, **{**arrays, "pose": np.zeros((24, 6))})
    with pytest.raises(DataError, match=r"params\.npz: 'pose' has shape \(24, 6\), exp.* \(144\)"):
        load_mean_params(path)
    np.savez(path, pose=arrays["pose"], shape=arrays["shape"])
    with pytest.raises(DataError, match=r"params\.npz lacks the key 'cam'"):
        load_mean_params(path)


def test_the_mean_pose_as_matrices():
    torch.testing.assert_close(zero_mean_params().rotmats, torch.eye(3).expand(24, 3, 3))
