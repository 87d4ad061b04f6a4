"""Balanced means against brute force; intervals hold what they promise."""

import numpy as np
import pytest

from depthbal.evaluation import balanced_errors


def brute_force(errors, distances, bins, tails):
    """Follow the released evaluation one sample at a time."""
    low, high = min(distances), max(distances)
    delta = (high - low) / bins
    found = {}
    for error, d in zip(errors, distances, strict=True):
        found.setdefault(int((d - low) / delta - 0.001), []).append(error)
    means = [sum(v) / len(v) for v in found.values()]
    values = {"all": sum(means) / len(means)}
    ranked = [e for _, e in sorted(zip(distances, errors, strict=True), reverse=True)]
    for p in tails:
        taken = ranked[: int(len(ranked) * p / 100)]
        values[f"tail{p}"] = sum(taken) / len(taken)
    return values, {k: len(v) for k, v in found.items()}


def balanced(errors, distances, **options):
    found = balanced_errors({"mpjpe": np.array(errors)}, np.array(distances), **options)
    return found["mpjpe"], found


@pytest.mark.parametrize(("samples", "bins"), [(3000, 100), (257, 100), (40, 7)])
def test_values_and_counts_equal_brute_force(samples, bins):
    draw = np.random.default_rng(samples)
    distances = draw.gamma(3.0, size=samples)
    errors = distances + draw.normal(size=samples)
    found, described = balanced(errors, distances, bins=bins, tails=(10, 5, 50))
    values, counts = brute_force(errors.tolist(), distances.tolist(), bins, (10, 5, 50))
    assert {key: found[key] for key in values} == pytest.approx(values, rel=1e-12)
    assert described["counts"] == [counts.get(k, 0) for k in range(bins)]
    assert described["bins_used"] == len(counts)
    assert [described["edges"][end] for end in (0, -1)] == [distances.min(), distances.max()]


def test_edges_empty_bins_short_tails_and_equal_distances():
    # as released, a distance on an edge belongs to the bin below
    assert balanced(np.arange(5.0), np.arange(5.0), bins=4)[1]["counts"] == [2, 1, 1, 1]
    found, _ = balanced([1.0, 1.0, 4.0], [0.0, 0.0, 1.0], bins=10, tails=(10,))
    assert found["all"] == 2.5
    assert found["tail10"] is None  # a tenth of three samples is none
    assert found["intervals_95"]["tail10"] == [None, None]
    same, described = balanced([1.0, 3.0], [2.0, 2.0])
    assert (same["all"], described["bins_used"]) == (2.0, 1)


@pytest.mark.parametrize("samples", [300, 3000])
@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_intervals_of_95_percent_hold_the_truth_in_about_95_percent(samples, slope):
    draw = np.random.default_rng(0)
    names, held = ("all", "tail10", "tail5"), []
    for _ in range(200):
        distances = draw.gamma(3.0, size=samples)
        mean = 10 + slope * distances + 0.3 * distances**2
        errors = mean + (1 + 0.3 * distances) * draw.normal(size=samples)
        truth, _ = brute_force(mean.tolist(), distances.tolist(), 100, (10, 5))
        ends = balanced(errors, distances)[0]["intervals_95"]
        held.append([ends[n][0] <= truth[n] <= ends[n][1] for n in names])
    # 200 draws of a 95 % event fall below 90 % once in 1000 times
    assert (np.mean(held, axis=0) >= 0.9).all()
    assert (np.mean(held, axis=0) <= 0.995).all()


def test_samples_that_repeat_each_other_do_not_narrow_the_intervals():
    draw = np.random.default_rng(0)
    distances = draw.gamma(3.0, size=200)
    errors = distances + draw.normal(size=200)
    alone, _ = balanced(errors, distances)
    frames, described = balanced(
        np.tile(errors, 9), np.tile(distances, 9), groups=np.tile(np.arange(200), 9)
    )
    assert described["independent"] == "sequences"
    for name, ends in alone["intervals_95"].items():
        width, wide = np.diff(ends)[0], np.diff(frames["intervals_95"][name])[0]
        assert wide == pytest.approx(width, rel=0.1)
