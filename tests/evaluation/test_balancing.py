"""How balancing is chosen: on held-out scenes, with an interval, or not at all."""

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import DepthBins, Label, LabelBins
from depthbal.evaluation.balancing import JointHistogram, choose_balance, require_unseen, scenes_of
from depthbal.priors import Histogram

EDGES = np.linspace(0.0, 10.0, 21)
BINS = LabelBins(EDGES, ["many"] * 8 + ["medium"] * 6 + ["few"] * 6)


def truths(rng, n=400):
    """The depths of a scene: near as a rule, seldom far."""
    reach = 3.0 if rng.random() < 0.3 else 1.0
    return np.clip(0.3 + reach * rng.gamma(2.0, 0.7, n), 0.1, 9.99)


def leaning(rng, y):
    """Seen with noise, and E[y | seen] of a world of near labels: it leans towards 2 m."""
    seen = y + 0.8 * rng.standard_normal() + 0.4 * rng.standard_normal(len(y))
    return 2.0 + 0.65 * (seen - 2.0)


def scenes(seed, count=60, predict=leaning, scale=1.0):
    rng = np.random.default_rng(seed)
    drawn = (truths(rng) for _ in range(count))
    return [(scale * predict(rng, y), y) for y in drawn]


def filled(pairs, bins=BINS, groups=None):
    joint = JointHistogram(bins)
    for i, (p, y) in enumerate(pairs):
        joint.update(p, y, None, f"image {i}", "" if groups is None else groups[i])
    return joint


def over_bins(pairs, change=lambda p: p, bins=BINS):
    """Mean over the bins of each one's RMSE, label by label: overall, many, medium, few."""
    p, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    index = np.digitize(y, EDGES) - 1
    squared = (change(p) - y) ** 2
    rmse = [
        np.sqrt(squared[index == b].mean()) if (index == b).any() else np.nan for b in range(20)
    ]
    parts = (slice(None), slice(0, 8), slice(8, 14), slice(14, 20))
    return [float(np.nanmean(rmse[part])) for part in parts]


def test_the_joint_histogram_counts_labels_sums_and_images():
    rng = np.random.default_rng(0)
    joint = JointHistogram(BINS)
    plain = np.zeros((3, 20))
    for i in range(14):  # two images to a scene; one has no label at all
        y, p = rng.uniform(-1, 12, 50), rng.uniform(-30, 60, 50)
        mask = (rng.random(50) < 0.5) & (i != 5)
        joint.update(torch.from_numpy(p), torch.from_numpy(y), mask, f"{i}", f"scene {i // 2}")
        for value, counted in zip(y, mask, strict=True):
            if counted and value >= 0:
                b = min(int(value * 2), 19)
                plain[:, b] += 1, value, value**2
    np.testing.assert_allclose(joint.moments[:, :3].sum((0, 2)), plain)
    assert (len(joint.names), joint.folds) == (14, {f"scene {k}": k for k in range(7)})
    assert joint.label_range[1] > 10  # the last bin takes everything beyond
    one = JointHistogram(BINS)
    for name in "abc":
        one.update([1.0, 1.0], [2.0, 2.0], name=name, group="same")
    assert one.moments[0].max((1, 2)).tolist() == [6, 12, 24, 3]


def test_held_out_errors_are_those_of_maps_fitted_without_the_fold():
    pairs = scenes(0, 20)
    facts = choose_balance(filled(pairs), taus=[0.6]).facts
    np.testing.assert_allclose(list(facts["before"].values()), over_bins(pairs), rtol=2e-3)
    changed = []
    for k in range(10):
        rest = [pair for i, pair in enumerate(pairs) if i % 10 != k]
        balance = choose_balance(filled(rest), taus=[0.6])
        changed += [(balance(p), y) for i, (p, y) in enumerate(pairs) if i % 10 == k]
    np.testing.assert_allclose(list(facts["after"].values()), over_bins(changed), rtol=1e-2)
    fall = 1 - over_bins(changed)[0] / over_bins(pairs)[0]
    assert facts["fall"] == pytest.approx(fall, abs=5e-3)
    low, high = facts["interval_95"]
    assert low < facts["fall"] < high


def test_a_leaning_model_is_better_balanced_on_scenes_of_its_own():
    balance = choose_balance(filled(scenes(1)), taus=[0.0, 0.4, 0.8])
    facts, others = balance.facts, scenes(2, 200)
    assert facts["interval_95"][0] > 0.05
    gained = 1 - over_bins(others, balance)[0] / over_bins(others)[0]
    assert gained > 0.1
    assert facts["interval_95"][0] < gained < facts["interval_95"][1] + 0.05
    assert facts["coverage"]["overall"] == pytest.approx(0.68, abs=0.08)
    low, covered, count = np.array(facts["coverage"]["bins"]).T
    assert (low[0], low[-1]) == (0.0, 9.5)
    assert facts["coverage"]["overall"] == pytest.approx(covered.sum() / count.sum())


def test_a_model_wrong_by_a_factor_is_mended_to_within_two_percent_of_the_right_one():
    def right(rng, y):
        return y * (1 + 0.1 * rng.standard_normal() + 0.05 * rng.standard_normal(len(y)))

    few = {"taus": [0.0, 0.5, 1.0]}
    wrong = choose_balance(filled(scenes(3, 100, right, 1.3)), **few)
    own = choose_balance(filled(scenes(3, 100, right)), **few)
    test, scaled = scenes(4, 300, right), scenes(4, 300, right, 1.3)
    natural = [
        np.sqrt(np.mean((np.concatenate([f(p) - y for p, y in pairs])) ** 2))
        for f, pairs in ((wrong, scaled), (lambda p: p, test))
    ]
    assert over_bins(scaled)[0] > 1.5 * over_bins(test)[0]
    assert over_bins(scaled, wrong)[0] <= 1.02 * over_bins(test)[0]
    assert over_bins(scaled, wrong)[0] <= 1.02 * over_bins(test, own)[0]
    assert natural[0] <= 1.02 * natural[1]


@pytest.mark.parametrize("count", [12, 60])
def test_where_nothing_is_to_be_gained_the_interval_says_so(count):
    def exact(rng, y):
        return y

    low, _ = choose_balance(filled(scenes(5, count, exact)), taus=[0, 1]).facts["interval_95"]
    assert low <= 0


def test_few_shot_is_lowest_among_the_ways_that_keep_many_shot_in_bounds():
    joint = filled(scenes(7, 80))
    free, bound = (choose_balance(joint, objective="few", many_at_most=x).facts for x in (99, 1.1))
    assert choose_balance(joint, objective="few").facts["tau"] == bound["tau"]
    most = 1.1 * bound["before"]["many"]
    allowed = [row for row in bound["tried"] if row["many"] <= most]
    assert bound["tau"] == min(allowed, key=lambda row: row["few"])["tau"]
    assert free["tau"] == min(free["tried"], key=lambda row: row["few"])["tau"] > bound["tau"]


def test_the_theorem_is_tried_where_the_training_labels_are_known():
    joint = filled(scenes(8, 30))
    prior = Histogram(EDGES, 1 + joint.moments[:, 0].sum((0, 1)))
    facts = choose_balance(joint, prior=prior, taus=[0.3]).facts
    assert [next(iter(row)) for row in facts["tried"]] == ["tau"] + ["noise_sigma"] * 6
    given = choose_balance(joint, Label("height", "m"), prior=prior, taus=[], sigmas=[0.7])
    assert (given.noise_sigma, given.label) == (0.7, ("height", "m"))
    assert given.facts["noise_sigma"] == 0.7
    p = np.concatenate([p for p, _ in scenes(8, 30)])
    assert (given(p) - p)[p > 4].mean() > 0.1  # far ones go farther
    with pytest.raises(ConfigError, match="no way to balance"):
        choose_balance(joint, taus=[])


NEAR = [(np.minimum(p, 3), np.minimum(y, 3)) for p, y in scenes(0, 12)]
FAR = np.linspace(7.5, 9.5, 50)


@pytest.mark.parametrize(
    ("pairs", "bins", "groups", "objective", "message"),
    [
        (scenes(0, 9), BINS, None, "overall", "10 labelled images or more, got 9"),
        (scenes(0, 12), BINS, ["a"] * 12, "overall", "all 12 images are of one scene"),
        (
            scenes(0, 12, lambda _, y: 0 * y + 3),
            BINS,
            None,
            "overall",
            r"are about 3\b",
        ),
        ([(p, -y) for p, y in scenes(0, 12)], BINS, None, "overall", "no label counts"),
        (scenes(0, 12), LabelBins(EDGES), None, "few", "nothing to gain: .* in the bins of few"),
        (
            [*NEAR, (FAR - 1, FAR)],
            BINS,
            None,
            "few",
            "too few scenes have labels in .* few",
        ),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(pairs, bins, groups, objective, message):
    with pytest.raises(DataError, match=message):
        choose_balance(filled(pairs, bins, groups), objective=objective)


def test_images_that_do_not_fit_are_refused():
    joint = JointHistogram(BINS)
    with pytest.raises(DataError, match="one has predictions that are not finite"):
        joint.update([np.nan, 1.0], [1.0, 1.0], name="one")
    with pytest.raises(DataError, match=r"\(2,\) and target \(1,\) differ"):
        joint.update([1.0, 1.0], [1.0])
    with pytest.raises(DataError, match=r"2 of 3 test images .* \(b, c\)"):
        require_unseen(["b", "c", "d", ""], ["a", "b", "c"])
    require_unseen(["a", ""], ["b", ""])
    assert scenes_of("aba") == ["a", "b", "a"]
    assert scenes_of("aa") == ["", ""]  # a single folder is no scene


def test_memory_does_not_grow_with_the_images_and_the_benchmarks_bins_work():
    joint = JointHistogram(DepthBins.nyud2())
    size = joint.moments.nbytes
    for i in range(40):
        joint.update(np.full(9, 2.0 + i / 10), np.full(9, 2.0), name=str(i))
    assert (joint.moments.nbytes, len(joint.edges)) == (size, 94)
    assert size < 20e6
