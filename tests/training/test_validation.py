import math

import pytest
import torch

from depthbal.training.validation import ValidationMetrics


def test_the_selection_metric_is_the_mean_over_half_metre_bins_of_rmse():
    generator = torch.Generator().manual_seed(0)
    target = 10 * torch.rand(3, 1, 6, 7, generator=generator)
    preds = target + torch.randn(3, 1, 6, 7, generator=generator)
    metrics = ValidationMetrics(max_depth=10.0)
    metrics.update(preds[:2], target[:2], target[:2] >= 0.7)
    metrics.update(preds[2:], target[2:], target[2:] >= 0.7)
    errors: dict[int, list[float]] = {}
    for p, y in zip(preds.flatten().tolist(), target.flatten().tolist(), strict=True):
        if y >= 0.7:
            errors.setdefault(int(y / 0.5), []).append((p - y) ** 2)
    expected = sum(math.sqrt(sum(e) / len(e)) for e in errors.values()) / len(errors)
    assert metrics.compute()["val/rmse_bins"] == pytest.approx(expected, rel=1e-6)


def test_nothing_valid_gives_no_metric():
    metrics = ValidationMetrics(max_depth=10.0)
    zeros = torch.zeros(1, 1, 2, 2)
    metrics.update(zeros, zeros, zeros > 0)
    assert metrics.compute() == {}
