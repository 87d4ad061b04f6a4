"""SPIN's network against a plain re-computation; every key of its checkpoint is accounted for."""

import pytest
import torch
from torch.nn import functional
from torchvision.models import resnet50

from depthbal.adapters.hmr import SpinNetwork
from depthbal.adapters.hmr.network import SpinHead, rot6d_to_rotmat
from depthbal.errors import CheckpointError, ConfigError

NAMES = {
    *(f"{layer}.{part}" for layer in ("fc1", "fc2", "decpose", "decshape", "deccam")
      for part in ("weight", "bias")),
    "init_pose", "init_shape", "init_cam",
}  # fmt: skip


def test_names_and_sizes_are_spins(published):
    head = published.head
    assert set(head.state_dict()) == NAMES
    # 3 469 469 in all and 318 entries of the backbone, measured on SPIN's own model
    assert sum(value.numel() for value in head.parameters()) == 3_469_469
    assert len(published.backbone.state_dict()) == 318
    reference = resnet50(weights=None).eval()
    reference.fc = torch.nn.Identity()
    reference.load_state_dict(published.backbone.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(published.backbone(images), reference(images))


def test_any_six_numbers_become_a_rotation_that_keeps_the_first_column():
    numbers = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotmats = rot6d_to_rotmat(numbers)
    eye = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotmats @ rotmats.mT, eye)
    torch.testing.assert_close(torch.linalg.det(rotmats), torch.ones(50, dtype=torch.float64))
    first = numbers[:, [0, 2, 4]]  # interleaved, as SPIN publishes them
    torch.testing.assert_close(rotmats[:, :, 0], first / first.norm(dim=1, keepdim=True))
    torch.testing.assert_close(rot6d_to_rotmat(rotmats[:, :, :2].flatten(1)), rotmats)


def recomputed(state, features, masks=None):
    """Recompute SPIN's models/hmr.py from nothing but its named parameters."""
    pose, shape, cam = (
        torch.cat([state[f"init_{name}"]] * len(features)) for name in ("pose", "shape", "cam")
    )
    for step in range(3):
        hidden = torch.cat([features, pose, shape, cam], 1)
        for layer, name in enumerate(("fc1", "fc2")):
            hidden = functional.linear(hidden, state[f"{name}.weight"], state[f"{name}.bias"])
            if masks is not None:
                hidden = hidden * masks[2 * step + layer]
        pose = pose + hidden @ state["decpose.weight"].T + state["decpose.bias"]
        shape = shape + hidden @ state["decshape.weight"].T + state["decshape.bias"]
        cam = cam + hidden @ state["deccam.weight"].T + state["deccam.bias"]
    return rot6d_to_rotmat(pose.reshape(-1, 24, 6)), shape, cam


@pytest.mark.parametrize("features", [2048, 32])
def test_output_equals_the_published_structure_dropout_included(features):
    torch.manual_seed(0)
    head = SpinHead(features).double().eval()
    # large decoders and a start, so that each of the three iterations matters
    for layer in (head.decpose, head.decshape, head.deccam):
        torch.nn.init.normal_(layer.weight, std=0.05)
    head.start_from({"shape": torch.randn(10), "cam": torch.randn(3)})
    inputs = torch.randn(3, features, dtype=torch.float64)
    torch.testing.assert_close(tuple(head(inputs)), recomputed(head.state_dict(), inputs))
    torch.manual_seed(5)
    found = head.train()(inputs)
    torch.manual_seed(5)
    ones = torch.ones(3, 1024, dtype=torch.float64)
    masks = [functional.dropout(ones, 0.5) for _ in range(2 * 3)]
    torch.testing.assert_close(tuple(found), recomputed(head.state_dict(), inputs, masks))


# ---- checkpoints ----


def renamed(state, head_prefix, backbone_prefix):
    return {(head_prefix if k in NAMES else backbone_prefix) + k: v for k, v in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda s: {"model": s, "optimizer": {"state": {}}, "epoch": 3, "dataset_perm": [2, 0, 1]},
        lambda s: renamed(s, "module.", "module."),
        lambda s: {"state_dict": renamed(s, "head.", "backbone.")},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["spin", "data parallel", "mmhuman3d", "old torch"],
)
def test_all_forms_of_checkpoints_predict_as_spin(tmp_path, published, spin_state, form):
    torch.save(form(spin_state), tmp_path / "model_checkpoint.pt")
    network = SpinNetwork(str(tmp_path / "model_checkpoint.pt"), keep_head=True).eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert all(map(torch.equal, network(images), published(images)))


def test_a_new_regressor_leaves_that_of_the_checkpoint(checkpoint, published):
    network = SpinNetwork(checkpoint)
    assert not torch.equal(network.head.fc1.weight, published.head.fc1.weight)
    assert torch.equal(network.backbone.bn1.running_mean, published.backbone.bn1.running_mean)
    assert SpinNetwork(**network.init_args).load_state_dict(network.state_dict())


def test_a_file_without_a_regressor_and_settings_that_contradict_are_named(tmp_path, spin_state):
    path = tmp_path / "spin_official_nofc.pth"
    torch.save({k: v for k, v in spin_state.items() if k not in NAMES}, path)
    assert torch.equal(SpinNetwork(str(path)).backbone.conv1.weight, spin_state["conv1.weight"])
    with pytest.raises(CheckpointError, match=r'nofc\.pth.*Missing .*"head\.init_pose"'):
        SpinNetwork(str(path), keep_head=True)
    with pytest.raises(ConfigError, match="features have no backbone"):
        SpinNetwork(str(path), features=64)
    twice = {"conv1.weight": torch.zeros(1), "module.conv1.weight": torch.zeros(1)}
    torch.save({"model": twice}, path)
    with pytest.raises(CheckpointError, match="under two names"):
        SpinNetwork(str(path))
