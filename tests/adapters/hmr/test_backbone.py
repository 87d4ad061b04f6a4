"""The backbone is torchvision's ResNet-50 without fc, and stays frozen."""

import torch
from torchvision.models import resnet50

from depthbal.adapters.hmr.backbone import ResNet50Features, freeze


def test_features_and_names_equal_torchvisions_network_without_its_classifier():
    reference = resnet50(weights=None).eval()
    backbone = ResNet50Features().eval()
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    assert len(state) == 318  # measured on SPIN's own model
    backbone.load_state_dict(state)
    reference.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone(images), reference(images))
        assert backbone(images).shape == (2, 2048)


def test_a_frozen_backbone_is_bit_identical_after_a_training_pass():
    model = torch.nn.Sequential(freeze(ResNet50Features()), torch.nn.Linear(2048, 1))
    before = {name: value.clone() for name, value in model[0].state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    assert model[1].training
    assert not any(module.training for module in model[0].modules())
    for name, value in model[0].state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_backbone_that_is_not_frozen_trains():
    assert ResNet50Features().train().bn1.training
