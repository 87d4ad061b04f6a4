"""Feature distribution smoothing against a loop over bins and features."""

import pytest
import torch

from depthbal.losses.label_weights import smoothing_kernel
from depthbal.models.feature_bins import feature_bins
from depthbal.models.feature_smoothing import FeatureDistributionSmoothing
from tests import reference
from tests.models.test_feature_statistics import rows_of

EDGES = [0.7, 1.0, 1.6, 2.0, 3.5, 4.0, 10.0]
CLIP = (0.2, 5.0)
KERNEL = smoothing_kernel("gaussian", 5, 2.0).tolist()


def batch(seed, dtype=torch.float32, size=(5, 7)):
    """Features whose mean and spread depend on the label; some labels are missing (NaN)."""
    generator = torch.Generator().manual_seed(seed)
    number = 3 if size else 60
    labels = 0.5 + 4 * torch.rand(number, 1, *size, generator=generator)
    labels[(labels > 1.6) & (labels < 2.0)] = 3.0  # the third bin is empty
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = float("nan")
    noise = torch.randn(number, 4, *size, generator=generator)
    features = labels.nan_to_num(7.0) * 2 + noise * labels.nan_to_num(1.0).sqrt()
    features[:, 3] = torch.where(labels[:, 0] < 1.0, 0.0, features[:, 3])  # a dead channel
    return features.to(dtype), labels


def smoothing_after(epochs, size=(5, 7), **options):
    fds = FeatureDistributionSmoothing(EDGES, 4, **options)
    moments = []
    for seed in range(epochs):
        features, labels = batch(seed, size=size)
        statistics = fds.statistics()
        index = feature_bins(labels, ~labels.isnan(), fds.edges, size)
        statistics.update(features, index)
        fds.update(statistics.moments())
        bins = reference.fds_bins(labels[:, 0], EDGES)
        moments.append(reference.fds_moments(*rows_of(features, bins), 6))
    return fds, reference.fds_running(moments, options.get("momentum", 0.9))


@pytest.mark.parametrize("size", [(5, 7), ()], ids=["dense", "vectors"])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_loop(size, epochs, dtype):
    fds, running = smoothing_after(epochs, size)
    features, labels = batch(9, dtype, size)
    leaf = features.clone().requires_grad_()
    index = feature_bins(labels, ~labels.isnan(), fds.edges, size)
    out = fds(leaf, index)
    rows, bins = rows_of(features, reference.fds_bins(labels[:, 0], EDGES))
    rows.requires_grad_()
    expected = reference.fds_calibrate(rows, bins, running, KERNEL, CLIP)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (out.movedim(1, -1).reshape(-1, 4) * weights).sum().backward()
    assert out.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    found, slope = (tensor.movedim(1, -1).reshape(-1, 4).double() for tensor in (out, leaf.grad))
    torch.testing.assert_close(found, expected.detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slope, rows.grad, rtol=tolerance, atol=tolerance)
    assert (found - rows).abs().max() > 0.1  # something was calibrated
    assert torch.equal(leaf, features)


@pytest.mark.parametrize("kernel", ["triangular", "laplace"])
def test_the_other_kernels_and_settings_reach_the_calibration(kernel):
    options = {"kernel": kernel, "kernel_size": 3, "kernel_sigma": 1.0, "clip": (0.9, 1.1)}
    fds, running = smoothing_after(2, momentum=0.5, **options)
    features, labels = batch(9)
    index = feature_bins(labels, ~labels.isnan(), fds.edges, (5, 7))
    rows, bins = rows_of(features, reference.fds_bins(labels[:, 0], EDGES))
    weights = smoothing_kernel(kernel, 3, 1.0).tolist()
    expected = reference.fds_calibrate(rows, bins, running, weights, (0.9, 1.1))
    found = fds(features, index).movedim(1, -1).reshape(-1, 4).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_bin_that_was_never_seen_is_neither_calibrated_nor_does_it_pull_others():
    fds, running = smoothing_after(2)
    assert running[2] is None
    assert fds.scale[2].tolist() == [1.0] * 4
    assert fds.shift[2].tolist() == [0.0] * 4
    fds.mean[2] = 1e6  # whatever is there plays no part
    before = fds.shift.clone()
    fds.tabulate()
    assert torch.equal(fds.shift, before)


def updated(edges, *epochs):
    """One channel; every epoch is (values, bins)."""
    fds = FeatureDistributionSmoothing(edges, 1, momentum=0.9)
    for values, bins in epochs:
        statistics = fds.statistics()
        statistics.update(torch.tensor(values)[:, None], torch.tensor(bins))
        fds.update(statistics.moments())
    return fds


def test_running_moments_move_by_a_tenth_and_start_from_a_bins_own_statistics():
    fds = updated([0.0, 1.0], ([1.0, 3.0], [0, 0]), ([11.0, 15.0], [0, 0]))
    assert fds.mean.item() == pytest.approx(0.9 * 2 + 0.1 * 13)
    assert fds.variance.item() == pytest.approx(0.9 * 2 + 0.1 * 8)
    fds = updated([0.0, 1.0, 2.0], ([1.0, 3.0], [0, 0]), ([1.0, 3.0, 6.0, 8.0], [0, 0, 1, 1]))
    assert fds.mean.flatten().tolist() == [2.0, 7.0]
    assert fds.variance.flatten().tolist() == [2.0, 2.0]


def test_one_known_bin_alone_is_calibrated_to_itself():
    fds = updated([0.0, 1.0, 2.0, 3.0], ([1.0, 5.0], [1, 1]))
    features = torch.tensor([[2.0], [9.0]])
    torch.testing.assert_close(fds(features, torch.tensor([1, 1])), features)


def test_nothing_changes_before_the_first_update():
    features, labels = batch(0)
    fds = FeatureDistributionSmoothing(EDGES, 4)
    assert torch.equal(fds(features, feature_bins(labels, None, fds.edges, (5, 7))), features)


def test_the_state_comes_back_with_its_tables():
    fds, _ = smoothing_after(2)
    fresh = FeatureDistributionSmoothing(EDGES, 4)
    fresh.load_state_dict(fds.state_dict())
    assert torch.equal(fresh.scale, fds.scale)
    assert torch.equal(fresh.shift, fds.shift)
    assert set(fds.state_dict()) == {"edges", "passes", "mean", "variance"}


def test_the_backward_pass_keeps_no_number_per_feature():
    fds, _ = smoothing_after(1)
    features, labels = batch(1)
    index = feature_bins(labels, None, fds.edges, (5, 7))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fds(features.requires_grad_(), index)
    kept = sum(tensor.numel() for tensor in saved if tensor.is_floating_point())
    assert kept == fds.scale.numel() < features.numel()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"clip": (2.0, 1.0)}, "clip"),
        ({"kernel_size": 4}, "kernel_size"),
        ({"kernel": "box"}, "gaussian"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureDistributionSmoothing(EDGES, 4, **options)
