"""Every key of a SPIN checkpoint is accounted for."""

import pytest
import torch

from depthbal.adapters.hmr.backbone import ResNet50Features
from depthbal.adapters.hmr.checkpoint import load_spin_checkpoint
from depthbal.adapters.hmr.head import SpinHead
from depthbal.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def published():
    """What SPIN saves, as its models/hmr.py names it."""
    torch.manual_seed(0)
    backbone = ResNet50Features()
    torch.nn.init.normal_(backbone.bn1.running_mean)
    head = SpinHead()
    torch.nn.init.normal_(head.init_pose)
    return {**backbone.state_dict(), **head.state_dict()}


@pytest.fixture(scope="module")
def networks():
    return ResNet50Features(), SpinHead()


def _renamed(state, head_prefix="", backbone_prefix=""):
    heads = SpinHead().state_dict()
    return {(head_prefix if k in heads else backbone_prefix) + k: v for k, v in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda s: {"model": s, "optimizer": {"state": {}}, "epoch": 3, "dataset_perm": [2, 0, 1]},
        lambda s: s,
        lambda s: _renamed(s, "module.", "module."),
        lambda s: {"state_dict": _renamed(s, "head.", "backbone.")},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["spin", "bare", "data parallel", "mmhuman3d", "old torch"],
)
def test_all_forms_fill_backbone_and_regressor(tmp_path, published, form):
    torch.save(form(published), tmp_path / "model_checkpoint.pt")
    backbone, head = ResNet50Features(), SpinHead()
    assert load_spin_checkpoint(tmp_path / "model_checkpoint.pt", backbone, head, require_head=True)
    for name, value in {**backbone.state_dict(), **head.state_dict()}.items():
        assert torch.equal(value, published[name]), name


@pytest.mark.parametrize("with_start", [False, True])
def test_a_file_without_a_regressor_leaves_it_to_be_trained(tmp_path, published, with_start):
    heads = [k for k in SpinHead().state_dict() if not (with_start and k.startswith("init_"))]
    path = tmp_path / "spin_official_nofc.pth"
    torch.save({k: v for k, v in published.items() if k not in heads}, path)
    backbone, head = ResNet50Features(), SpinHead()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    assert not load_spin_checkpoint(path, backbone, head)
    assert torch.equal(backbone.bn1.running_mean, published["bn1.running_mean"])
    assert torch.equal(head.decpose.weight, before["decpose.weight"])
    assert torch.equal(head.init_pose, (published if with_start else before)["init_pose"])
    with pytest.raises(CheckpointError, match=r"nofc\.pth holds no regressor.*fc1\.weight"):
        load_spin_checkpoint(path, backbone, head, require_head=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"1 missing \(layer1\.0\.conv1\.weight\)"),
        (lambda s: s.pop("deccam.bias"), r"1 missing \(deccam\.bias\)"),
        (lambda s: s.update(strange=torch.zeros(1)), r"1 unexpected \(strange\)"),
        (
            lambda s: s.update({"decpose.weight": torch.zeros(72, 1024)}),
            r"decpose\.weight \(72, 1024\) instead of \(144, 1024\)",
        ),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"conv1\.weight \(64, 1, 7, 7\) instead of \(64, 3, 7, 7\)",
        ),
        (lambda s: s.update({"module.fc1.bias": torch.zeros(1024)}), "under two names"),
        (lambda s: s.update(note="text"), "no tensors under note"),
    ],
)
def test_other_keys_and_shapes_are_errors_that_name_file_and_key(
    tmp_path, published, networks, change, message
):
    state = dict(published)
    change(state)
    path = tmp_path / "model_checkpoint.pt"
    torch.save({"model": state}, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_spin_checkpoint(path, *networks)
    assert str(path) in str(caught.value)


def test_files_that_are_missing_damaged_or_would_run_code_are_refused(tmp_path, networks):
    with pytest.raises(ConfigError, match=r"no weight file at .*absent\.pt"):
        load_spin_checkpoint(tmp_path / "absent.pt", *networks)
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        load_spin_checkpoint(tmp_path / "cut.pt", *networks)
    torch.save({"model": SpinHead()}, tmp_path / "object.pt")
    with pytest.raises(CheckpointError, match="can run code"):
        load_spin_checkpoint(tmp_path / "object.pt", *networks)
