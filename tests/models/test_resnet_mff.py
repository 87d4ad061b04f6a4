import copy
import json

import pytest
import torch

from depthbal.errors import CheckpointError, ConfigError
from depthbal.models import ResNetMFF
from depthbal.models.resnet_mff import UpProjection
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


def step(model, images):
    """Return the output and all gradients of a weighted sum of it."""
    model.zero_grad()
    preds = model(images)
    (
        preds * torch.linspace(-1, 1, preds.numel(), dtype=preds.dtype).view_as(preds)
    ).sum().backward()
    return preds.detach(), {name: value.grad for name, value in model.named_parameters()}


def reference_step(model, images):
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        state[name] = parameter.detach().clone().requires_grad_()
    preds = reference.resnet_mff(state, images, model.training)
    (
        preds * torch.linspace(-1, 1, preds.numel(), dtype=preds.dtype).view_as(preds)
    ).sum().backward()
    return preds.detach(), {name: state[name].grad for name, _ in model.named_parameters()}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_equals_the_published_network_written_out_by_hand(model, training):
    # float64: in float32 one ReLU input in a million changes its sign with the order of a sum
    double = copy.deepcopy(model).double().train(training)
    torch.manual_seed(1)
    images = torch.randn(2, 3, 37, 59, dtype=torch.float64)
    preds, gradients = step(double, images)
    expected, expected_gradients = reference_step(double, images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(preds, expected, rtol=1e-10, atol=1e-10)
    for name, expected_gradient in expected_gradients.items():
        difference = (gradients[name] - expected_gradient).norm()
        assert difference <= 1e-10 * expected_gradient.norm(), name


@pytest.mark.parametrize(("size", "training"), [((228, 304), True), ((201, 333), False)])
def test_float32_predictions_at_full_size_err_no_more_than_the_published_networks(
    model, size, training
):
    model.train(training)
    torch.manual_seed(2)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        published = reference.resnet_mff(model.state_dict(), images, training)
        preds = model(images)
        truth = copy.deepcopy(model).double()(images.double())
    assert (preds - truth).norm() <= 1.1 * (published - truth).norm() <= 1e-3 * truth.norm()


def test_plain_and_folded_form_are_one_network(model):
    plain = ResNetMFF(folded=False).eval()
    plain.load_state_dict(model.state_dict())
    assert plain.init_args == {"weights": None, "folded": False}
    assert model.init_args == {"weights": None}
    torch.manual_seed(3)
    images = torch.randn(1, 3, 61, 90)
    with torch.inference_mode():
        difference = (plain(images) - model.eval()(images)).norm()
        assert 0 < difference <= 1e-5 * plain(images).norm()


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


def test_refuses_a_published_checkpoint_that_lacks_a_weight(tmp_path, model):
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    del state["module.R.conv2.bias"]
    torch.save({"state_dict": state}, tmp_path / "lacking.pth.tar")
    with pytest.raises(CheckpointError, match=r"1 missing \(R\.conv2\.bias\)"):
        ResNetMFF(weights=str(tmp_path / "lacking.pth.tar"))


def test_names_the_published_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.pth\.tar"):
        ResNetMFF(weights=str(tmp_path / "nowhere.pth.tar"))


def test_an_up_projection_of_a_constant_has_the_closed_form():
    """With all-ones kernels and fresh statistics each branch counts the taps inside the image."""
    block = UpProjection(1, 1).eval()
    for parameter in (block.conv1.weight, block.conv1_2.weight, block.conv2.weight):
        torch.nn.init.ones_(parameter)
    with torch.inference_mode():
        out = block(torch.ones(1, 1, 4, 4), (9, 11))
    norm = 1 / (1 + 1e-5) ** 0.5
    centre = 25 * norm * 9 * norm + 25 * norm  # both branches, far from the border
    assert torch.isclose(out[0, 0, 4, 5], torch.tensor(centre))
    first = torch.tensor([[9.0, 12.0], [12.0, 16.0]]).sum() * norm  # taps of the corner's 5x5
    assert torch.isclose(out[0, 0, 0, 0], first * norm + 9 * norm)


def test_an_up_projection_cuts_negative_sums_and_has_no_bias_before_a_normalisation():
    block = UpProjection(1, 1).eval()
    torch.nn.init.zeros_(block.conv1_2.weight)
    torch.nn.init.constant_(block.conv2.weight, -1.0)
    with torch.inference_mode():
        assert torch.equal(block(torch.ones(1, 1, 3, 3), (6, 6)), torch.zeros(1, 1, 6, 6))
    names = [name for name, _ in block.named_parameters() if "conv" in name]
    assert names == ["conv1.weight", "conv1_2.weight", "conv2.weight"]
