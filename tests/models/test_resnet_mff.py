import copy
import json

import pytest
import torch

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
        assert model(torch.zeros(1, 3, 201, 333)).shape == (1, 1, 102, 168)
    assert sum(parameter.numel() for parameter in model.parameters()) == 67_569_473


def gradients_of(preds, parameters):
    weights = torch.linspace(-1, 1, preds.numel(), dtype=preds.dtype).view_as(preds)
    return torch.autograd.grad((preds * weights).sum(), parameters)


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_published_network_written_out_by_hand(model, training):
    # float64: in float32 one ReLU input in a million changes its sign with the order of a sum
    double = copy.deepcopy(model).double().train(training)
    torch.manual_seed(1)
    images = torch.randn(2, 3, 37, 59, dtype=torch.float64)
    parameters = dict(double.named_parameters())
    leaves = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    state = {name: buffer.clone() for name, buffer in double.named_buffers()} | leaves
    expected = reference.resnet_mff(state, images, training=training)
    preds = double(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(preds, expected, rtol=1e-10, atol=1e-10)
    gradients = gradients_of(preds, list(parameters.values()))
    for name, found, true in zip(
        parameters, gradients, gradients_of(expected, list(leaves.values())), strict=True
    ):
        assert (found - true).norm() <= 1e-10 * true.norm(), name


def test_float32_predictions_at_full_size_err_no_more_than_the_published_networks(model):
    model.train()
    torch.manual_seed(2)
    images = torch.randn(1, 3, 228, 304)
    with torch.no_grad():
        published = reference.resnet_mff(model.state_dict(), images, training=True)
        preds = model(images)
        truth = copy.deepcopy(model).double()(images.double())
    # other kernels add in another order, on some processors with a quarter more error
    assert (preds - truth).norm() <= 1.5 * (published - truth).norm() <= 1e-3 * truth.norm()


def test_plain_and_folded_form_are_one_network(model):
    plain = ResNetMFF(folded=False).eval()
    plain.load_state_dict(model.state_dict())
    assert (plain.init_args["folded"], model.init_args["folded"]) == (False, True)
    torch.manual_seed(3)
    images = torch.randn(1, 3, 61, 90)
    with torch.inference_mode():
        difference = (plain(images) - model.eval()(images)).norm()
        assert 0 < difference <= 1e-5 * plain(images).norm()
