"""The examples of docs/losses.md and docs/evaluation.md run, and what they compute is right."""

import re
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from depthbal.data import RoomsDataModule
from depthbal.evaluation import DepthBins, JointHistogram, choose_balance
from depthbal.losses import BalanceMap, BMCLoss, BNILoss, GAILoss
from depthbal.priors import Histogram

ROOT = Path(__file__).resolve().parents[1]
GUIDE = "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("losses.md", "evaluation.md")
)


def example(word: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if word in block)
    assert len(block.strip().splitlines()) <= 8
    return block


def run(word: str, **given: object) -> dict[str, object]:
    torch.manual_seed(0)
    names: dict[str, object] = {
        **{"torch": torch, "nn": nn, "smp": smp, "timm": timm, "Histogram": Histogram},
        **{"GAILoss": GAILoss, "BNILoss": BNILoss, "BMCLoss": BMCLoss},
        "image": torch.rand(2, 3, 32, 32),
        **given,
    }
    exec(example(word), names)
    network = names["network"]
    assert isinstance(network, nn.Module)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    return names


def test_plain_pytorch():
    depths = [0.7 + 9.3 * torch.rand(2, 1, 32, 32) ** 2 for _ in range(3)]
    depths[2][..., :8] = 0
    names = run(
        "training_depths", training_depths=depths, depth=depths[2], network=nn.Conv2d(3, 1, 1)
    )
    assert 0.7 < names["metres"].min() < names["metres"].max() < 10.0
    assert names["loss"].noise.log_sigma.grad is not None
    assert names["histogram"].total == 3 * 2 * 32 * 32 - 2 * 32 * 8


def test_a_height_map_with_segmentation_models():
    heights = Histogram(np.arange(0, 61.0), 1000 * np.exp(-np.arange(60) / 8))
    height = 60 * torch.rand(2, 1, 32, 32)
    names = run("smp.Unet", height_histogram=heights, height=height, height_is_known=height > 5)
    assert names["height_map"].shape == height.shape
    assert names["height_map"].min() >= 0


def test_a_table():
    names = run("nn.Linear", rows=torch.rand(16, 8), price=torch.rand(16) * 100)
    assert names["balanced"].shape == (16,)


def test_ages_with_timm():
    counts = 1 + np.arange(103)[::-1]
    given = {"counts_of_ages_0_to_102": counts, "age": torch.tensor([20, 80])}
    names = run("timm", np=np, portrait=torch.rand(2, 3, 64, 64), **given)
    assert names["years"].shape == (2, 1)
    assert -0.5 <= names["years"].min() <= names["years"].max() <= 102.5


def test_balancing_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    depths = [(0.8 + rng.gamma(2.0, 1.0, (20, 30))).clip(0, 9.9) for _ in range(30)]
    images = [(f"{i}", 2 + 0.5 * (depth - 2), depth) for i, depth in enumerate(depths)]
    names: dict[str, object] = {
        **{"JointHistogram": JointHistogram, "choose_balance": choose_balance},
        **{"BalanceMap": BalanceMap, "bins": DepthBins.nyud2(), "torch": torch},
        **{"calibration_images": images, "other_prediction": images[0][1]},
    }
    exec(example("choose_balance"), names)
    assert 0.5 < names["low"] < names["gain"] < names["high"] < 1
    assert np.abs(names["metres"] - depths[0]).mean() < 0.1
    lower, upper = names["lower"].numpy(), names["upper"].numpy()
    assert ((lower <= names["metres"]) & (names["metres"] <= upper)).all()


def test_anybodys_depth(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = RoomsDataModule(n_train=4, n_val=0, n_test=2, size=(24, 32), num_workers=0)
    exec(example("depthbal.evaluate"), {"data": data, "predict": lambda image: image.mean(2) / 32})
    assert (tmp_path / "results" / "mine" / "metrics.json").is_file()
    assert len(capsys.readouterr().out.split()) == 2


def test_the_guide_names_what_exists():
    for path in set(re.findall(r"tools/\w+\.py", GUIDE)):
        assert (ROOT / path).is_file()
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", GUIDE):
        assert (ROOT / "docs" / picture).is_file()
