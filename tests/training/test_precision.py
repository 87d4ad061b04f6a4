"""Which device and precision are chosen."""

import pytest
import torch

from depthbal.errors import ConfigError
from depthbal.losses import MSELoss
from depthbal.models import ResNetMFF
from depthbal.training.precision import default_precision, usable_accelerator
from depthbal.training.task import DepthTask


def test_a_mac_trains_on_its_cpu_because_mps_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_accelerator("auto") == "cpu"
    with pytest.raises(ConfigError, match="accelerator cpu"):
        usable_accelerator("mps")


def test_others_get_what_they_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert [usable_accelerator(name) for name in ("auto", "cpu", "gpu")] == ["auto", "cpu", "gpu"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16-mixed"), ({"avx512_bf16": False}, "32-true"), ({}, "32-true")],
)
def test_bfloat16_only_where_the_cpu_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert default_precision("cpu") == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_only_where_the_gpu_multiplies_it_natively(monkeypatch, native, expected):
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert [default_precision(name) for name in ("auto", "gpu", "cuda")] == [expected] * 3


def test_the_folded_network_trains_channels_last_in_bfloat16():
    torch.manual_seed(0)
    task = DepthTask(ResNetMFF(), MSELoss())
    filters = [p for p in task.model.parameters() if p.ndim == 4]
    batch = {"image": torch.randn(2, 3, 33, 50), "depth": torch.full((2, 1, 18, 26), 3.0)}
    outputs = []
    task.model.register_forward_hook(lambda module, images, preds: outputs.append(preds))
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.compute_loss(batch)
    loss.backward()
    assert outputs[0].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)
    # PyTorch's fused optimizers ask for gradients in the parameters' layout
    assert all(p.grad.is_contiguous(memory_format=torch.channels_last) for p in filters)
    assert all(p.grad.dtype == torch.float32 for p in filters)
