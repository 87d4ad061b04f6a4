"""The age regressor: backbones, their weights, and what the head computes."""

import pytest
import timm
import torch
from torch import nn

from depthbal.adapters.age import AgeRegressor
from depthbal.errors import ConfigError

SMALL = {"backbone": "test_resnet", "library": "timm"}


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "library", "width"),
    [
        ("resnet18", "torchvision", 512),
        ("mobilenet_v3_small", "torchvision", 1024),
        ("test_vit", "timm", 64),
        ("mobilenetv3_small_050", "timm", 1024),
    ],
)
def test_any_backbone_gives_features_that_the_head_reads(backbone, library, width):
    model = AgeRegressor(backbone, library=library).eval()
    batch = images(160 if backbone == "test_vit" else 64)
    features = model.backbone(batch)
    assert features.shape == (2, width)
    expected = features @ model.head.weight[0] + model.head.bias
    torch.testing.assert_close(model(batch), expected)


def test_ages_are_predicted_in_float32_under_autocast_from_the_first_guess_on():
    model = AgeRegressor(**SMALL).eval()
    model.initialise_bias(80.3)
    features = torch.rand(4, model.head.in_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        labels = model.head(features.bfloat16())
    assert labels.dtype == torch.float32
    assert torch.equal(labels, model.head(features.bfloat16().float()))
    nn.init.zeros_(model.head.weight)
    assert model(images()).tolist() == pytest.approx([80.3, 80.3])


@pytest.mark.parametrize("classes", [0, 1000])
def test_weights_come_from_a_file_of_the_classifier_or_of_the_backbone(tmp_path, classes):
    source = timm.create_model("test_resnet", num_classes=classes).state_dict()
    torch.save(source, tmp_path / "weights.pth")
    model = AgeRegressor(**SMALL, weights=str(tmp_path / "weights.pth"))
    assert all(torch.equal(v, source[name]) for name, v in model.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet51"}, "no backbone of torchvision 'resnet51'; did you mean resnet50"),
        ({"backbone": "resnet51", "library": "timm"}, "no backbone of timm 'resnet51'"),
        ({"backbone": "squeezenet1_1"}, "does not end in one linear layer"),
        ({"weights": "IMAGENET1K_V9"}, "no weights 'IMAGENET1K_V9'; did you mean IMAGENET1K_V"),
        ({**SMALL, "weights": "r9_in1k"}, "weights 'r9_in1k' cannot be had"),
        ({"weights": "/nowhere/a.pth"}, "no weight file at /nowhere/a.pth"),
    ],
)
def test_what_cannot_be_built_is_named_with_what_can(arguments, message):
    with pytest.raises(ConfigError, match=message):
        AgeRegressor(**arguments)
