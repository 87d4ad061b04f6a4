"""SPIN for re-training: what a checkpoint brings, and where the regressor starts."""

from pathlib import Path

import pytest
import torch

from depthbal.adapters.hmr.backbone import ResNet50Features
from depthbal.adapters.hmr.head import SpinHead, zero_mean_params
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def published() -> tuple[ResNet50Features, SpinHead]:
    torch.manual_seed(0)
    head = SpinHead()
    torch.nn.init.normal_(head.init_cam)
    return ResNet50Features().eval(), head.eval()


@pytest.fixture
def checkpoint(tmp_path: Path, published: tuple[ResNet50Features, SpinHead]) -> str:
    path = tmp_path / "model_checkpoint.pt"
    state = {name: value for part in published for name, value in part.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, path)
    return str(path)


def test_a_kept_regressor_predicts_as_the_checkpoint_does(
    checkpoint: str, published: tuple[ResNet50Features, SpinHead]
) -> None:
    backbone, head = published
    network = SpinNetwork(checkpoint, keep_head=True).eval()
    network.start_from(zero_mean_params())  # which a kept regressor does not heed
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for found, expected in zip(network(images), head(backbone(images)), strict=True):
            torch.testing.assert_close(found, expected)


def test_a_new_regressor_leaves_the_checkpoints_and_starts_at_the_mean(
    checkpoint: str, published: tuple[ResNet50Features, SpinHead]
) -> None:
    network = SpinNetwork(checkpoint)
    assert not torch.equal(network.head.fc1.weight, published[1].fc1.weight)
    network.start_from(zero_mean_params())
    torch.testing.assert_close(network.head.init_cam[0], zero_mean_params().cam)
    assert not any(p.requires_grad for p in network.backbone.parameters())  # type: ignore[union-attr]
    assert not network.train().backbone.bn1.training  # type: ignore[union-attr]


def test_contradictions_and_pictures_without_a_backbone_name_the_setting(
    tmp_path: Path, published: tuple[ResNet50Features, SpinHead]
) -> None:
    with pytest.raises(ConfigError, match="keep_head needs weights"):
        SpinNetwork(keep_head=True)
    with pytest.raises(ConfigError, match="2048 features, got features=64"):
        SpinNetwork("somewhere.pt", features=64)
    with pytest.raises(ConfigError, match="pictures need weights"):
        SpinNetwork(features=64)(torch.zeros(1, 3, 224, 224))
    path = tmp_path / "spin_official_nofc.pth"
    torch.save(published[0].state_dict(), path)
    with pytest.raises(CheckpointError, match="no regressor"):
        SpinNetwork(str(path), keep_head=True)
