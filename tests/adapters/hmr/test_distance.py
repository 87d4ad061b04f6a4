"""Balanced means against brute force; intervals hold what they promise."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthbal.adapters.hmr.distance import (
    balanced_error,
    geodesic_pose_distance,
    vertex_distance,
)
from depthbal.errors import DataError


def _brute_force(errors, distances, bins, tails):
    """Follow the released evaluation one sample at a time."""
    low, high = min(distances), max(distances)
    delta = (high - low) / bins
    found = {}
    for error, d in zip(errors, distances, strict=True):
        index = int((d - low) / delta - 0.001)
        found.setdefault(index, []).append(error)
    means = [sum(v) / len(v) for v in found.values()]
    values = {"all": sum(means) / len(means)}
    ranked = [e for _, e in sorted(zip(distances, errors, strict=True), reverse=True)]
    for p in tails:
        taken = ranked[: int(len(ranked) * p / 100)]
        values[f"tail{p}"] = sum(taken) / len(taken)
    return values, {k: len(v) for k, v in found.items()}


@pytest.mark.parametrize(("samples", "bins"), [(3000, 100), (257, 100), (40, 7)])
def test_values_and_counts_equal_brute_force(samples, bins):
    draw = np.random.default_rng(samples)
    distances = draw.gamma(3.0, size=samples)
    errors = distances + draw.normal(size=samples)
    result = balanced_error(errors, distances, bins=bins, tails=(10, 5, 50))
    values, counts = _brute_force(errors.tolist(), distances.tolist(), bins, (10, 5, 50))
    assert result.values == pytest.approx(values, rel=1e-12)
    assert result.counts.tolist() == [counts.get(k, 0) for k in range(bins)]
    assert result.bins_used == len(counts)
    assert result.edges[[0, -1]].tolist() == [distances.min(), distances.max()]


def test_a_distance_on_an_edge_belongs_to_the_bin_below_as_released():
    result = balanced_error(np.arange(5.0), np.arange(5.0), bins=4)
    assert result.counts.tolist() == [2, 1, 1, 1]


def test_empty_bins_and_too_short_tails_have_no_say():
    result = balanced_error([1.0, 1.0, 4.0], [0.0, 0.0, 1.0], bins=10, tails=(10,))
    assert result.values["all"] == 2.5
    assert math.isnan(result.values["tail10"])  # a tenth of three samples is none


def test_equal_distances_are_one_bin():
    result = balanced_error(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))
    assert (result.values["all"], result.bins_used) == (2.0, 1)


@pytest.mark.parametrize(
    ("errors", "distances", "message"),
    [
        ([], [], r"\(0,\) and \(0,\)"),
        ([1.0], [1.0, 2.0], r"\(1,\) and \(2,\)"),
        ([1.0, math.nan], [1.0, 2.0], "finite"),
        ([1.0, 1.0], [1.0, math.inf], "finite"),
    ],
)
def test_bad_input_is_named(errors, distances, message):
    with pytest.raises(DataError, match=message):
        balanced_error(errors, distances)


@pytest.mark.parametrize("samples", [300, 3000])
@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_intervals_of_95_percent_hold_the_truth_in_about_95_percent(samples, slope):
    draw = np.random.default_rng(0)
    names, held = ("all", "tail10", "tail5"), []
    for _ in range(200):
        distances = draw.gamma(3.0, size=samples)
        mean = 10 + slope * distances + 0.3 * distances**2
        errors = mean + (1 + 0.3 * distances) * draw.normal(size=samples)
        truth, _ = _brute_force(mean.tolist(), distances.tolist(), 100, (10, 5))
        intervals = balanced_error(errors, distances).intervals
        held.append([intervals[n][0] <= truth[n] <= intervals[n][1] for n in names])
    # 200 draws of a 95 % event fall below 90 % once in 1000 times
    assert (np.mean(held, axis=0) >= 0.9).all()
    assert (np.mean(held, axis=0) <= 0.995).all()


def test_samples_that_repeat_each_other_do_not_narrow_the_intervals():
    draw = np.random.default_rng(0)
    distances = draw.gamma(3.0, size=200)
    errors = distances + draw.normal(size=200)
    alone = balanced_error(errors, distances).intervals
    frames = balanced_error(
        np.tile(errors, 9), np.tile(distances, 9), groups=np.tile(np.arange(200), 9)
    ).intervals
    for name in alone:
        width, wide = np.diff(alone[name])[0], np.diff(frames[name])[0]
        assert wide == pytest.approx(width, rel=0.1)


def test_vertex_distance_is_the_mean_over_vertices_in_millimetres():
    vertices = torch.zeros(2, 4, 3)
    mean = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0]])
    assert vertex_distance(vertices, mean).tolist() == [1500.0, 1500.0]


def test_geodesic_distance_is_the_mean_angle_over_24_joints():
    turns = Rotation.random(2 * 24, random_state=0)
    mean = Rotation.random(24, random_state=1)
    matrices = torch.from_numpy(turns.as_matrix()).reshape(2, 24, 3, 3)
    found = geodesic_pose_distance(matrices, torch.from_numpy(mean.as_matrix()))
    for sample in range(2):
        angles = [(turns[24 * sample + j].inv() * mean[j]).magnitude() for j in range(24)]
        assert found[sample].item() == pytest.approx(sum(angles) / 24)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 3.0, np.pi])
def test_geodesic_distance_holds_at_both_ends_in_float32(angle):
    turned = torch.from_numpy(Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()).float()
    tolerance = 1e-9 + 1e-5 * angle if angle < 3.1 else 3e-3
    found = geodesic_pose_distance(turned.expand(1, 24, 3, 3), torch.eye(3).expand(24, 3, 3))
    assert found.item() == pytest.approx(angle, abs=tolerance)
