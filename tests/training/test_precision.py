"""Which device and precision are chosen."""

import pytest
import torch

from depthbal.errors import ConfigError
from depthbal.training.precision import default_precision, usable_accelerator


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
