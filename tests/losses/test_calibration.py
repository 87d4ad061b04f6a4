"""Balancing by calibration: what the map and its interval are."""

import numpy as np
import pytest
import torch

from depthbal.losses.calibration import calibrate
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import GaussianMixture, Histogram
from tests.reference import calibrated

EDGES = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 6.0])
CELLS = np.linspace(-1.0, 8.0, 24)


def joint(samples, cells=CELLS, edges=EDGES):
    """The arguments of `calibrate`, counted one sample at a time."""
    shape = len(cells) - 1, len(edges) - 1
    counts, sums, scenes = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    total, seen = np.zeros(shape[0]), set()
    for scene, p, y in samples:
        at = np.searchsorted(cells, p, "right") - 1, np.searchsorted(edges, y, "right") - 1
        counts[at] += 1
        sums[at] += y
        scenes[at] += (scene, *at) not in seen
        seen.add((scene, *at))
        total[at[0]] += p
    return total / counts.sum(1).clip(1), counts, sums, scenes, edges


def drawn(seed, n=400, scenes=12):
    rng = np.random.default_rng(seed)
    y = np.clip(0.5 + rng.gamma(1.5, 1.0, n), 0.5, 5.99)
    p = 0.6 * y + 1.0 + 0.7 * rng.standard_normal(n)
    return list(zip(rng.integers(scenes, size=n).tolist(), p.tolist(), y.tolist(), strict=True))


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_weighted_monotone_mean_and_its_quantiles(seed, tau):
    samples = drawn(seed, n=400 if seed else 25)
    balance = calibrate(*joint(samples), (0.5, 6.0), tau)
    expected = np.array(calibrated(samples, CELLS.tolist(), EDGES.tolist(), tau))
    p = torch.from_numpy(expected[:, 0])
    found = torch.stack([balance(p), *balance.interval(p)], 1).numpy()
    np.testing.assert_allclose(found, expected[:, 1:].clip(0.5, 6.0), rtol=1e-9, atol=1e-9)
    assert (np.diff(found, axis=0) >= 0).all()


def test_a_single_scene_moves_half_way_and_many_scenes_all_the_way():
    """One cell of predictions of 4 m, all labels 2.5 m: support of n scenes gives n / (n + 1)."""
    for scenes in (1, 3, 99):
        samples = [(scene, 4.0, 2.5) for scene in range(scenes) for _ in range(5)]
        moved = 4.0 - float(calibrate(*joint(samples), (0.5, 6.0))(torch.tensor([4.0])))
        assert moved == pytest.approx(1.5 * scenes / (scenes + 1), rel=1e-6)


def test_a_rare_label_of_one_scene_is_little_support_though_many_scenes_are_in_the_cell():
    """Its weight is large, so that the mean rests on it: Kish's effective number says 1.9."""
    common = [(scene, 2.5, 2.5) for scene in range(50)]
    samples = [*common, (50, 2.5, 5.5)]
    balanced = float(calibrate(*joint(samples), (0.5, 6.0))(torch.tensor([2.5])))
    support = 2**2 / (1 + 1 / 50)  # both labels weigh as much; one comes from a single scene
    expected = (support * 4.0 + 2.5) / (support + 1)
    assert balanced == pytest.approx(expected, rel=1e-6)


def test_beyond_its_support_it_goes_back_to_the_identity_without_a_jump():
    samples = [(scene, p, 0.7 * p) for scene in range(200) for p in (2.0, 3.0, 4.0)]
    balance = calibrate(*joint(samples), (0.5, 20.0))
    p = torch.linspace(-30, 60, 9001, dtype=torch.float64)
    f = balance(p)
    assert f.diff().min() >= 0
    assert f.diff().max() < 0.02  # steps of 0.01
    assert balance(torch.tensor([4.0])).item() == pytest.approx(2.8, rel=0.01)
    # half a label range further half of the correction of 1.2 is left
    assert balance(torch.tensor([13.75])).item() == pytest.approx(13.75 - 0.6, abs=0.01)
    assert (f.min(), f.max()) == (0.5, 20.0)


def test_the_interval_holds_68_percent_of_the_target_worlds_labels():
    """Labels uniform on 1 to 9 after weighting, seen with noise of known size."""
    rng = np.random.default_rng(0)
    n, sigma, edges = 200_000, 0.5, np.linspace(0.0, 10.0, 101)
    y = np.minimum(1 + rng.exponential(1.5, n), 9.99)
    p = y + sigma * rng.standard_normal(n)
    cells = np.linspace(-2, 13, 301)
    samples = zip(range(n), p.tolist(), y.tolist(), strict=True)
    balance = calibrate(*joint(list(samples), cells, edges), (0.0, 10.0))
    at = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)
    lower, upper = balance.interval(at)
    torch.testing.assert_close(balance(at), at, atol=0.1, rtol=0)
    torch.testing.assert_close(lower, at - sigma, atol=0.12, rtol=0)
    torch.testing.assert_close(upper, at + sigma, atol=0.12, rtol=0)


HISTOGRAM = Histogram(EDGES, [5, 4, 3, 2, 1])


@pytest.mark.parametrize(
    "balance",
    [
        calibrate(*joint(drawn(0)), (0.5, 6.0), 0.7),
        BalanceMap(HISTOGRAM, 0.8, (0.5, 6.0)),
        BalanceMap(GaussianMixture([1.0], [2.0], [3.0]), 0.8),
    ],
)
def test_a_saved_map_is_the_same_for_tensors_and_arrays(balance, tmp_path):
    balance.label, balance.facts = ("depth", "m"), {"fall": 0.1, "names": ["a"]}
    balance.save(tmp_path / "new" / "balance.json")
    loaded = BalanceMap.load(tmp_path / "new" / "balance.json")
    p = torch.linspace(0.2, 7.0, 63).view(3, 21)
    assert type(loaded) is type(balance)
    assert (loaded.label, loaded.facts) == (balance.label, balance.facts)
    torch.testing.assert_close(loaded(p), balance(p))
    torch.testing.assert_close(loaded.interval(p), balance.interval(p))
    found = loaded(p.numpy())
    assert (found.dtype, found.shape) == (np.float32, (3, 21))
    np.testing.assert_array_equal(found, balance(p).numpy())
    assert loaded.describe() == balance.describe()
    assert "names" not in loaded.describe()
