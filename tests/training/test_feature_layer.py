"""Which layer's input FDS smooths."""

import pytest
import torch
from torch import nn

from depthbal.errors import ConfigError
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.training.feature_layer import find_layer, input_channels


def test_of_the_published_network_it_is_the_published_layer():
    with torch.device("meta"):
        network = ResNetMFF()
    assert find_layer(network) is network.R.conv2
    assert input_channels(network.R.conv2) == 128


@pytest.mark.parametrize("arch", ["unet", "fpn", "deeplabv3plus", "segformer"])
def test_of_smp_networks_it_is_the_head(arch):
    network = SmpDepth(arch, "mobilenet_v2")
    assert find_layer(network) in list(network.network.segmentation_head.modules())


def test_a_layer_can_be_named():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    assert find_layer(network, "0") is network[0]


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), None, "one output.*layer.*: 0"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), "head", "'head'.*0, 1"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "1", "'1'"),
        (nn.Sequential(nn.ReLU()), None, "none"),
    ],
)
def test_no_such_layer_is_named_with_those_there_are(network, name, message):
    with pytest.raises(ConfigError, match=message):
        find_layer(network, name)
