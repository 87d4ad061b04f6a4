import json

import pytest
import torch

from depthbal.errors import CheckpointError, ConfigError
from depthbal.models import ResNetMFF
from tests import reference
from tests.shared import SHARED, needs_shared


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ResNetMFF()
    # not the identity that fresh statistics are, so that a missing normalisation would show
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return model


def test_has_the_published_number_of_parameters(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 67_569_473


@needs_shared
def test_has_the_published_names_shapes_and_types(model):
    published = json.loads((SHARED / "facts" / "official_state_dict.json").read_text())
    ours = [
        [name, list(value.shape), str(value.dtype).removeprefix("torch.")]
        for name, value in model.state_dict().items()
    ]
    assert sorted(ours) == sorted(published)


def test_has_the_published_sizes_at_every_stage(model):
    with torch.inference_mode():
        images = torch.zeros(1, 3, 228, 304)
        stages = model.eval().E(images)
        sizes = [tuple(stage.shape[1:]) for stage in stages]
        assert sizes == [(256, 57, 76), (512, 29, 38), (1024, 15, 19), (2048, 8, 10)]
        assert model(images).shape == (1, 1, 114, 152)


def test_takes_odd_sizes(model):
    with torch.inference_mode():
        assert model.eval()(torch.zeros(1, 3, 201, 333)).shape == (1, 1, 102, 168)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_equals_the_published_network_written_out_by_hand(model, training):
    model.train(training).zero_grad()
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        state[name] = parameter.detach().clone().requires_grad_()
    torch.manual_seed(1)
    images = torch.randn(2, 3, 65, 97)
    preds = model(images)
    expected = reference.resnet_mff(state, images, training)
    assert expected.std() > 1e-3
    torch.testing.assert_close(preds, expected, rtol=1e-5, atol=1e-5)

    weights = torch.randn_like(preds)
    (preds * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in model.named_parameters():
        difference = (parameter.grad - state[name].grad).norm()
        assert difference <= 1e-4 * state[name].grad.norm(), name


def test_starts_at_the_given_depth(model):
    fresh = ResNetMFF().eval()
    torch.manual_seed(2)
    images = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        before = fresh(images)
        fresh.R.conv2.bias.zero_()
        centred = fresh(images)
        fresh.initialise_bias(2.75)
        torch.testing.assert_close(fresh(images), centred + 2.75)
    assert not torch.equal(before, centred + 2.75)


def test_takes_encoder_weights_from_a_file_with_its_classifier(tmp_path, model, caplog):
    state = {f"module.{name}": value for name, value in model.E.state_dict().items()}
    state |= {"module.fc.weight": torch.zeros(1000, 2048), "module.fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "resnet.pth")
    caplog.set_level("INFO", "depthbal")
    loaded = ResNetMFF(weights=str(tmp_path / "resnet.pth"))
    for name, value in model.E.state_dict().items():
        assert torch.equal(loaded.E.state_dict()[name], value), name
    assert "module.fc.weight" in caplog.text


def test_refuses_weights_of_another_encoder(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"missing \(.*layer1\.0\.conv3\.weight"):
        ResNetMFF(weights=str(tmp_path / "resnet18.pth"))


def test_names_the_known_weights_when_the_name_is_wrong():
    with pytest.raises(ConfigError, match="IMAGENET1K_V2"):
        ResNetMFF(weights="IMAGENET1K_V3")
