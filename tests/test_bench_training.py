"""The benchmark of the training step."""

import json

import torch

from tests.test_tools import tool


def test_the_step_is_measured_folded_against_published_and_the_loader_with_it(tmp_path, capsys):
    options = ["--quick", "--repeats", "1", "--workers", "0", "--device", "cpu", "--out", tmp_path]
    assert tool("bench_training.py", *options) == 0
    result = json.loads((tmp_path / "training_cpu.json").read_text())
    steps = {(row["device"], row["form"]): row for row in result["steps"]}
    published = steps["cpu", "as published, float32"]
    folded = steps["cpu", "folded, bfloat16, channels_last"]
    assert published["times_published"] == 1
    assert folded["times_published"] == published["best_s"] / folded["best_s"]
    assert folded["images_per_s"] == 2 / folded["best_s"]
    # weights, gradients and Adam's two moments: 67.6 million numbers of 4 bytes each
    for row in (published, folded):
        assert 4 * 67_569_473 * 4 / 2**30 < row["peak_gib"] < 1.5
    (loader,) = result["loaders"]
    assert loader["images"] == 4
    assert 0 < loader["waiting_for_data"] < 1
    assert loader["training_images_per_s"] < loader["loader_images_per_s"]
    page = (tmp_path / "training_cpu.md").read_text()
    assert f"torch {torch.__version__}" in page
    if not torch.cuda.is_available():
        assert "| cuda | 32 | as published, float32 | open: no GPU on this machine |" in page
    capsys.readouterr()
    assert tool("bench_training.py", *options) == 2
    assert "--overwrite" in capsys.readouterr().err
