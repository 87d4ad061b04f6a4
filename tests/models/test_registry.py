import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from depthbal.errors import ConfigError
from depthbal.models import MODELS, SmpDepth, build_model, register_model


def test_rebuilds_a_model_from_its_own_arguments():
    original = SmpDepth("fpn", "mobilenet_v2", output_scale=0.25, arch_args={"decoder_dropout": 0})
    rebuilt = build_model("SmpDepth", original.init_args)
    assert type(rebuilt) is SmpDepth
    assert rebuilt.init_args == original.init_args
    rebuilt.load_state_dict(original.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(rebuilt.eval()(images), original.eval()(images))


@pytest.mark.parametrize("name", ["SmpDepth", "ResNetMFF"])
def test_never_fetches_weights(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    assert build_model(name, {"weights": "imagenet"}).init_args["weights"] is None
    assert build_model(name, {"weights": "/gone/encoder.pth"}).init_args["weights"] is None


def test_names_the_known_models_when_the_name_is_wrong():
    with pytest.raises(ConfigError, match=r"ResNetMFF.*SmpDepth"):
        build_model("os.system", {"command": "true"})


def test_says_which_argument_does_not_fit():
    with pytest.raises(ConfigError, match="archh"):
        build_model("SmpDepth", {"archh": "unet"})


def test_refuses_a_second_class_of_the_same_name():
    impostor = type("SmpDepth", (nn.Module,), {"__module__": "elsewhere"})
    with pytest.raises(ConfigError, match="registered already"):
        register_model(impostor)
    assert MODELS["SmpDepth"] is SmpDepth


def test_refuses_an_impostor_even_before_the_real_class_is_imported():
    code = (
        "from torch import nn\n"
        "from depthbal.errors import ConfigError\n"
        "from depthbal.models.registry import register_model\n"
        "try:\n"
        "    register_model(type('ResNetMFF', (nn.Module,), {'__module__': 'elsewhere'}))\n"
        "except ConfigError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"


def test_importing_the_package_loads_no_network_library():
    code = (
        "import sys, depthbal.models, depthbal.models.registry\n"
        "heavy = {'torchvision', 'timm', 'segmentation_models_pytorch', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "[]"
