import pytest
import torch

from depthbal.models import feature_statistics
from depthbal.models.feature_statistics import FeatureStatistics
from tests import reference


def dense_batch(seed=0, batch=3, channels=5, size=(7, 9), bins=6):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, *size, generator=generator) * 3 + 20
    index = torch.randint(0, bins + 1, (batch, *size), generator=generator)
    return features, index


def rows_of(features, index):
    return features.movedim(1, -1).reshape(-1, features.shape[1]).double(), index.flatten()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("chunk", [1, 200, 2**22])
def test_dense_moments_are_those_of_the_features_of_each_bin(layout, chunk, monkeypatch):
    monkeypatch.setattr(feature_statistics, "CHUNK", chunk)
    features, index = dense_batch()
    statistics = FeatureStatistics(6, 5)
    for part in range(3):  # several batches
        piece = features[part : part + 1].contiguous(memory_format=layout)
        statistics.update(piece, index[part : part + 1])
    moments = statistics.moments()
    for bin_, expected in enumerate(reference.fds_moments(*rows_of(features, index), 6)):
        count, mean, variance = expected
        assert moments.count[bin_] == count
        torch.testing.assert_close(moments.mean[bin_], mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(moments.variance[bin_], variance, rtol=1e-10, atol=0)


def test_features_of_images_and_low_precision(monkeypatch):
    features, index = dense_batch(size=())
    statistics = FeatureStatistics(6, 5)
    statistics.update(features.bfloat16(), index)
    rows = features.bfloat16().double()
    for bin_ in index.unique().tolist():
        if bin_ < 6:
            mean = rows[index == bin_].mean(0)
            torch.testing.assert_close(statistics.moments().mean[bin_], mean)


def test_a_mean_far_from_zero_leaves_the_variance_its_digits_and_a_constant_has_none():
    generator = torch.Generator().manual_seed(1)
    features = 1e4 + torch.randn(5000, 2, generator=generator, dtype=torch.float64)
    statistics = FeatureStatistics(1, 2)
    statistics.update(features, torch.zeros(5000, dtype=torch.int64))
    expected = features.var(0)
    torch.testing.assert_close(statistics.moments().variance[0], expected, rtol=1e-6, atol=0)
    constant = FeatureStatistics(1, 1)
    constant.update(torch.full((1001, 1), 0.1), torch.zeros(1001, dtype=torch.int64))
    assert constant.moments().variance.item() == 0


def test_features_without_a_label_count_nowhere_even_if_not_finite():
    statistics = FeatureStatistics(2, 1)
    features = torch.tensor([[1.0], [float("nan")], [3.0]])
    statistics.update(features, torch.tensor([0, 2, 0]))
    moments = statistics.moments()
    assert moments.count.tolist() == [2, 0]
    assert moments.mean.flatten().tolist() == [2, 0]


def test_sums_of_two_processes_add_up_to_those_of_one():
    features, index = dense_batch()
    whole, left, right = (FeatureStatistics(6, 5) for _ in range(3))
    whole.update(features, index)
    left.update(features[:1], index[:1])
    right.update(features[1:], index[1:])
    left.set_sums(left.sums() + right.sums())
    for name in ("count", "mean", "variance"):
        one, other = (getattr(sums.moments(), name) for sums in (left, whole))
        torch.testing.assert_close(one, other)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(2, 4, 3, 3\) and index \(2, 3, 4\)"):
        FeatureStatistics(3, 4).update(torch.zeros(2, 4, 3, 3), torch.zeros(2, 3, 4).long())
