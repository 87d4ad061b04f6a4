import subprocess
import sys
import urllib.error

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from depthbal.errors import CheckpointError, ConfigError
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.models.weights import load_encoder_file, read_state_dict


def make_encoder(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    encoder = nn.Sequential()
    encoder.add_module("conv", nn.Conv2d(3, 4, 3))
    encoder.add_module("bn", nn.BatchNorm2d(4))
    encoder.add_module("features", nn.Sequential(nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1)))
    nn.init.uniform_(encoder.bn.running_mean)
    return encoder


@pytest.fixture
def donor():
    return make_encoder(1)


@pytest.fixture
def encoder():
    return make_encoder(2)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


HEADS = {"module.fc.weight": torch.zeros(1), "module.classifier.1.bias": torch.zeros(1)}
FORMS = {
    **{
        prefix: lambda state, prefix=prefix: prefixed(state, prefix)
        for prefix in ("", "module.", "features.", "module.encoder.", "a.b.c.")
    },
    **{
        wrapper: lambda state, wrapper=wrapper: {wrapper: state, "error": np.float64(7)}
        for wrapper in ("state_dict", "model_state_dict", "model")
    },
    "heads": lambda state: prefixed(state, "module.") | HEADS,
    "old": lambda state: {k: v for k, v in state.items() if not k.endswith("batches_tracked")},
}


@pytest.mark.parametrize(
    ("form", "suffix"), [*((name, ".pth") for name in FORMS), ("module.", ".safetensors")]
)
def test_a_file_fills_the_encoder_with_a_prefix_wrapped_old_or_with_heads_which_are_named(
    tmp_path, donor, encoder, caplog, form, suffix
):
    content, path = FORMS[form](donor.state_dict()), tmp_path / f"weights{suffix}"
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    caplog.set_level("INFO", "depthbal")
    load_encoder_file(encoder, path)
    assert_same_state(encoder.state_dict(), donor.state_dict())
    assert (form == "heads") == ("module.fc.weight, module.classifier.1.bias" in caplog.text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv.bias"), r'Missing .*"conv\.bias"'),
        (lambda state: state.update(extra=torch.zeros(1)), 'Unexpected .*"extra"'),
        (
            lambda state: state.update({"conv.weight": torch.zeros(4, 1, 3, 3)}),
            r"size mismatch for conv\.weight.*\[4, 1, 3, 3\].*\[4, 3, 3, 3\]",
        ),
    ],
    ids=["missing", "unexpected", "reshaped"],
)
def test_a_misfit_is_listed(tmp_path, donor, encoder, change, message):
    state = donor.state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_encoder_file(encoder, tmp_path / "weights.pth")


def test_a_missing_file_is_a_setting_to_mend(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.pth; give an existing file, or weights=None"):
        read_state_dict(tmp_path / "gone.pth")


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.pth", None, r"cut\.pth"),
        ("cut.safetensors", None, r"cut\.safetensors"),
        *(
            ("a.pth", {"conv.weight": value}, "could run code")
            for value in (Trap(), np.array([1.0]), np.str_("text"), np.datetime64("2020-01-01"))
        ),
        *(
            ("a.pth", c, "dictionary of tensors")
            for c in ([1, 2], {}, {"epoch": 3}, torch.zeros(2))
        ),
        ("a.pth", {"conv.weight": torch.zeros(1), "note": "text"}, "no tensors under note"),
    ],
)
def test_a_file_that_is_cut_foreign_or_a_trap_is_refused(
    tmp_path, monkeypatch, donor, name, content, message
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(donor.state_dict() if content is None else content, path)
    if content is None:
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNetMFF(weights="imagenet"),
        lambda: SmpDepth(encoder="mobilenet_v2", weights="imagenet"),
        lambda: SmpDepth(encoder="tu-resnet18", weights="imagenet"),
    ],
    ids=["torchvision", "smp", "timm"],
)
def test_without_a_network_the_librarys_error_and_the_two_other_ways_are_named(
    make, monkeypatch, tmp_path, caplog
):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    caplog.set_level("INFO", logger="depthbal")
    message = r"(?i)'imagenet.*\(.*(no route|your connection).*\).*path of an encoder.*weights=None"
    with pytest.raises(ConfigError, match=message):
        make()
    for said in ("huggingface.co or download.pytorch.org", "weights: FILE"):
        assert said in caplog.text  # before the attempt


def test_importing_the_package_loads_no_network_library():
    code = (
        "import sys, depthbal.models\n"
        "heavy = {'torchvision', 'timm', 'segmentation_models_pytorch', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
