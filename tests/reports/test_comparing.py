import time
import tracemalloc

import numpy as np
import pytest

from depthbal.errors import ConfigError
from depthbal.evaluation import DepthBins, Label, LabelBins, metrics_of, summarise
from depthbal.reports import compare, load_results
from depthbal.reports.comparing import binnings, comparable, nice_width
from depthbal.reports.resampling import draw, units_of
from tests.reference import resampled_mean_over_bins
from tests.reports.made import RUN_BINS, depths, evaluate, make_run, report_of, result_of

SHOTS = ["many"] * 4 + ["medium"] * 2 + ["few"] * 4
BINS = LabelBins(np.arange(11.0), SHOTS)


def made_sums(seed=0, images=60, bins=10, share=0.4, shift=0.0):
    """Return (images, bins, 2) sums of pixels and losses; few images hold the last bins."""
    rng = np.random.default_rng(seed)
    present = rng.random((images, bins)) < share * np.linspace(2, 0.3, bins)
    pixels = rng.integers(1, 9, (images, bins)) * present
    pixels[0] += 1
    losses = pixels * (rng.random((images, bins)) + 1 + shift)
    return np.stack([pixels, losses], -1).astype(float)


def with_losses(sums, change):
    return np.stack([sums[..., 0], change(sums[..., 1], sums[..., 0])], -1)


def compared(*sums, resamples=200, **options):
    runs = [result_of(s, BINS, name=name, **options) for s, name in zip(sums, "abc", strict=False)]
    return compare(runs, resamples)


@pytest.mark.parametrize(("shift", "error"), [(0.0, 0.0), (0.25, 1e-12)])
def test_a_constant_shift_is_found_exactly_and_without_uncertainty(shift, error):
    sums = made_sums()
    shifted = with_losses(sums, lambda loss, pixels: loss + shift * pixels)
    pair = compared(sums, shifted).pairs[0]
    for difference in pair.differences.values():
        found = (difference.estimate, difference.low, difference.high)
        assert found == pytest.approx((shift,) * 3, rel=0, abs=error)
    for bins in pair.bands.values():
        assert bins["estimate"] == pytest.approx(
            np.full(len(bins["estimate"]), shift), rel=0, abs=error
        )


def test_intervals_are_those_of_a_plain_bootstrap_t_over_scenes():
    first, second = made_sums(0, images=40), made_sums(0, images=40)
    for sums in (first, second):
        sums[4:, 9] = 0  # two scenes hold the last bin
    second[..., 1] *= np.random.default_rng(5).uniform(0.5, 1.5, second.shape[:2])
    groups = [str(i // 2) for i in range(40)]
    comparison = compared(first, second, groups=groups, resamples=100)
    weights = draw(20, 100, 0)[:, units_of(groups).of_image].astype(float)

    def apart(rows):
        of_both = (
            resampled_mean_over_bins(sums, ["count", "loss"], "loss", rows, [6, 7, 8, 9])
            for sums in (first, second)
        )
        return np.subtract(*reversed([np.array(one) for one in of_both]))

    drawn, scene = apart(weights), np.arange(40) // 2
    moved = [apart(weights + 1e-6 * (scene == s)) - drawn for s in range(20)]
    slopes = np.stack(moved, 1)[1:] / 1e-6  # by the weight of every scene
    errors = np.sqrt((weights[1:, ::2] * slopes**2).sum(1))
    left_out = apart(np.stack([1.0 * (scene != s) for s in range(20)]))
    jackknife = np.sqrt(19 / 20 * ((left_out - left_out.mean()) ** 2).sum())
    half = np.quantile(np.abs(drawn[1:] - drawn[0]) / errors, 0.95) * jackknife
    found = comparison.pairs[0].differences["loss", "few", "bins"]
    assert (found.low, found.high) == pytest.approx((drawn[0] - half, drawn[0] + half), rel=1e-4)
    weights = weights[1:]
    counts = np.einsum("ri,ib->rb", weights, first[..., 0])
    assert comparison.empty.tolist() == (counts == 0).tolist()
    assert comparison.empty.any()


def test_the_mask_has_its_own_numbers_and_no_part_in_the_mean_over_bins():
    everywhere, mask = made_sums(0), made_sums(1)
    worse = with_losses(mask, lambda loss, pixels: loss + pixels)
    runs = [result_of(everywhere, BINS, mask=m, name=n) for m, n in ((mask, "a"), (worse, "b"))]
    found = compare(runs, resamples=200).pairs[0].differences
    assert found["loss", "overall", "bins"].estimate == 0
    pooled = found["loss", "overall", "pooled"]
    assert pooled.estimate == pytest.approx(1.0)
    assert pooled.first == pytest.approx(mask[..., 1].sum() / mask[..., 0].sum())


def test_a_bin_without_pixels_is_no_zero():
    sums = made_sums()
    sums[:, 9] = 0
    worse = with_losses(sums, lambda loss, pixels: loss + pixels)
    pair = compared(sums, worse).pairs[0]
    assert np.isnan(pair.bands["loss", 0]["estimate"][9])
    assert pair.differences["loss", "few", "bins"].estimate == pytest.approx(1.0)
    sums[:, 6:] = 0
    none = compared(sums, sums).pairs[0].differences["loss", "few", "bins"]
    assert none.estimate is None
    assert none.low is None


def test_bins_of_few_images_have_no_band():
    sums = made_sums(images=200)
    sums[:, 9] = 0
    sums[:19, 9] = 1
    noise = np.random.default_rng(0).normal(size=sums.shape[:2])
    noisy = with_losses(sums, lambda loss, pixels: loss + noise * pixels)
    comparison = compared(sums, noisy, groups=[str(i) for i in range(200)])
    binning = comparison.binnings[0]
    band = comparison.pairs[0].bands["loss", 0]
    assert binning.thin.tolist() == [False] * 9 + [True]
    assert np.isfinite(band["low"]).tolist() == [True] * 9 + [False]
    assert np.isfinite(band["estimate"]).all()


@pytest.mark.parametrize("scenes", [4, 19, 20])
def test_few_scenes_are_said_to_make_narrow_intervals_and_too_few_give_none(scenes):
    sums, groups = made_sums(share=4.0), [str(i % scenes) for i in range(60)]
    worse = with_losses(sums, lambda loss, pixels: loss + pixels)
    report = compared(sums, worse, groups=groups)
    difference = report.pairs[0].differences["loss", "overall", "bins"]
    assert difference.estimate == pytest.approx(1.0)
    assert (difference.low is None) == (scenes == 4)
    if scenes == 4:
        assert "4 test scenes (60 images) are too few" in report.notes[-1]
        assert "no interval" in report.sentences[0]
        assert "This holds only on 4 test scenes (60 images)" in report.sentences[0]
    assert any("may hold less often" in note for note in report.notes) == (scenes == 19)


def several_seeds(*counts):
    """Return runs of methods "m0", "m1", ... with the given numbers of seeds."""
    runs = []
    for m, count in enumerate(counts):
        for seed in range(count):
            sums = made_sums(0)
            sums[..., 1] += (m + 0.1 * seed) * sums[..., 0]
            runs.append(result_of(sums, BINS, name=f"m{m}-{seed}", method=f"m{m}", seed=seed))
    return runs


def test_seeds_of_one_method_are_averaged_and_widen_the_interval():
    comparison = compare(several_seeds(3, 3), resamples=400)
    assert [(m.name, m.seeds) for m in comparison.methods] == [("m0", (0, 1, 2)), ("m1", (0, 1, 2))]
    (pair,) = comparison.pairs
    paired = pair.differences["loss", "overall", "bins"]
    assert paired.estimate == pytest.approx(1.0)
    # seed by seed the difference is the same: the shared seeds' variation cancels
    assert (paired.low, paired.high) == pytest.approx((1.0, 1.0))
    assert "and 3 seeds of m0 and 3 seeds of m1." in report_of(*several_seeds(3, 3)).sentences[0]
    unpaired = report_of(*several_seeds(3, 2), resamples=400)
    difference = unpaired.pairs[0].differences["loss", "overall", "bins"]
    assert difference.estimate == pytest.approx(1.0 - 0.05)
    assert difference.low < 0.6  # Student's t of 2 seeds 0.1 apart: 0.05 x 12.7
    assert "3 seeds of m0 and 2 seeds of m1." in unpaired.sentences[0]


def test_every_method_is_compared_with_the_first_and_one_seed_claims_nothing():
    assert [pair.second for pair in compare(several_seeds(1, 1, 2), 200).pairs] == [1, 2]
    assert compare(several_seeds(2)).pairs == ()
    (sentence,) = report_of(*several_seeds(1, 1)).sentences
    assert "m0-0 and m1-0 have one seed each: nothing is claimed about the method" in sentence
    (mixed,) = report_of(*several_seeds(3, 1)).sentences
    assert "3 seeds of m0. m1-0 has one seed: nothing is claimed" in mixed
    (same,) = compared(made_sums(), made_sums()).sentences
    assert "the same" in same


def test_means_over_images_are_compared_as_means_over_images():
    sums = [made_sums(0), made_sums(1)]
    for one in sums:
        one[..., 0] = sums[0][..., 0]
        one[..., 1] = one[..., 0] * np.random.default_rng(int(one.sum())).random((60, 10))
    report = compared(*sums, averaging="images")
    found = report.pairs[0].differences["loss", "few", "pooled"]
    few = [s[:, 6:].sum(1) for s in sums]
    means = [(s[s[:, 0] > 0, 1] / s[s[:, 0] > 0, 0]).mean() for s in few]
    assert (found.first, found.second) == pytest.approx(tuple(means))
    assert found.low < found.estimate < found.high
    assert report.statistic_name("pooled") == "mean over images"
    assert report.first.metrics["few"]["loss"] == pytest.approx(means[0])


@pytest.mark.parametrize(("resamples", "seed", "message"), [(99, 0, "100"), (200, -1, "seed")])
def test_settings_that_make_no_sense_are_refused(resamples, seed, message):
    with pytest.raises(ConfigError, match=message):
        compare(several_seeds(1, 1), resamples, seed)


def test_ten_thousand_images_take_seconds_and_little_memory():
    rng = np.random.default_rng(0)
    pixels = rng.poisson(3, (10000, 100)) * (rng.random((10000, 100)) < 0.3)
    pixels[:, :7] = 0
    given = DepthBins.nyud2(), ("count", "squared", "relative")
    errors = ([pixels, *(pixels * rng.random((2, 10000, 100)))] for _ in range(2))
    runs = [result_of(np.stack(sums, -1), *given, main_metric="rmse") for sums in errors]
    size = runs[0].scores.sums("all").nbytes
    tracemalloc.start()
    start = time.process_time()
    compare(runs, resamples=1000)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 20
    assert peak < 6 * size + 1e8  # 1000 x 10,000 weights alone would be 8e7


# ---- what may be compared ----

FINER = DepthBins(np.arange(21.0) / 2, ["many"] * 10 + ["few"] * 10)
UNSCORED = DepthBins(np.arange(11.0), ["", *RUN_BINS.shots[1:]])
RULED = DepthBins(RUN_BINS.edges, RUN_BINS.shots, shot_rule="many above 1 %")


def changed_pixel():
    target = depths()
    target[7, 0, 0, 0] = 9.5
    return target


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"bins": FINER}, "bin edges 21 values, 0 to 10 instead of 11 values, 0 to 10"),
        ({"bins": UNSCORED}, "scored bins 9 values, 1 to 9 instead of 10 values, 0 to 9"),
        ({"bins": RULED}, "rule of the shots many above 1 % instead of –"),
        ({"mask_seed": 3}, r"balanced mask \(.*seed 3.*instead of .*seed 0"),
        ({"protocol": {"mask": None}}, r"balanced mask \(none\) instead of \(source drawn"),
        ({"target": depths(39)}, "39 test images instead of 40"),
        ({"prefix": "val"}, r"other test images \(40 of 40, the first 'val/0' instead of 'test/0'"),
        ({"target": changed_pixel()}, r"other truths in 1 of 40 test images \(the first: test/7\)"),
        (
            {"protocol": {"data": {"depth_range": [1, 9]}}},
            "depth_range of the test data .* instead of",
        ),
        ({"protocol": {"name": "mine"}}, "protocol mine instead of nyud2_dir"),
        ({"main": "mae"}, "main metric mae instead of rmse"),
        ({"label": Label("depth", "mm")}, "label depth in mm instead of depth in m"),
    ],
)
def test_another_protocol_is_refused_by_name(tmp_path, other, difference):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", **other)]
    with pytest.raises(ConfigError, match=f"b cannot be compared with a.*{difference}"):
        compare(load_results(runs), resamples=100)


def test_other_scenes_are_refused_but_unknown_ones_are_not(tmp_path):
    scenes = [str(i // 2) for i in range(40)]
    runs = [make_run(tmp_path / "a", groups=scenes), make_run(tmp_path / "b")]
    comparison = compare(load_results(runs), resamples=100)
    assert comparison.units.text == "20 test scenes (40 images)"
    evaluate(runs[1], 0.1, {}, groups=scenes[::-1])
    with pytest.raises(ConfigError, match="other scenes"):
        compare(load_results(runs), resamples=100)


def test_checkpoint_and_epochs_may_differ_and_are_noted(tmp_path):
    run = make_run(tmp_path / "a", posthoc=(1.0,))
    other = make_run(tmp_path / "b", protocol={"epochs": 5})
    notes = comparable(load_results([run, run / "eval" / "posthoc_1", other]))[1]
    assert notes == (
        "The number of epochs differs: 2 for a; 2 for a, balanced afterwards (sigma 1); 5 for b.",
    )


def test_shots_of_another_training_split_give_way_to_the_first_ones(tmp_path):
    moved = DepthBins(np.arange(11.0), ["many"] * 5 + ["medium"] + ["few"] * 4)
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", bias=0.3, bins=moved, interval=True)]
    results = load_results(runs)
    comparison = compare(results, resamples=100)
    first, other = comparison.results
    assert "b gives some bins other shots" in comparison.remarks[0]
    assert "shots of a" in comparison.remarks[0]
    assert other.bins.shots == RUN_BINS.shots
    scores = results[1].scores
    expected = summarise(scores.sums("mask", "clamped"), RUN_BINS, scores.terms)
    assert other.metrics["many"] == expected["many"] != results[1].metrics["many"]
    covered = scores.coverage("mask")[:4].sum(0)
    assert other.metrics["calibration"]["mask"]["many"]["coverage"] == covered[0] / covered[1]
    found = comparison.pairs[0].differences["rmse", "many", "pooled"]
    assert found.estimate == pytest.approx(
        other.metrics["many"]["rmse"] - first.metrics["many"]["rmse"], abs=1e-12
    )


# ---- the bins of figures ----


def drawn_result(bins, label, terms=("count", "squared", "relative"), images=50, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((images, len(bins))) < 0.3
    sums = rng.random((images, len(bins), len(terms))) * present[..., None]
    sums[..., 0] = rng.integers(1, 9, present.shape) * present
    sums[:, ~bins.scored] = 0
    main = metrics_of(terms)[0]
    return result_of(sums, bins, terms, label=label, main_metric=main)


DEPTH = drawn_result(DepthBins.nyud2(), Label("depth", "m"))
AGES = drawn_result(LabelBins(np.arange(0.0, 102.0)), Label("age", "years"), ("count", "absolute"))


def test_depth_has_fine_half_metre_and_log_spaced_bins():
    fine, half, log = binnings(DEPTH)
    assert (fine.name, half.name) == ("0.1 m", "0.5 m")
    assert log.name == "log-spaced (edges on 0.1 m)"
    assert len(fine.low) == 93
    assert half.low == pytest.approx([0.7, *np.arange(1.0, 10.0, 0.5)])
    assert half.high == pytest.approx(np.arange(1.0, 10.5, 0.5))
    assert (log.low[0], log.high[-1]) == pytest.approx((0.7, 10))
    ratios = np.log(log.high / log.low)
    assert ratios[4:] == pytest.approx(np.full(8, np.log(10 / 0.7) / 12), rel=0.25)


def test_other_labels_have_bins_of_round_widths():
    found = binnings(AGES)
    assert [binning.name for binning in found] == ["1 year", "5 years", "10 years"]
    assert found[1].low[:3].tolist() == [0, 5, 10]
    assert found[2].high[-2:].tolist() == [100, 101]
    millimetres = LabelBins(np.arange(0.0, 405.0, 5.0))
    found = binnings(drawn_result(millimetres, Label("distance", "mm"), ("count", "epe")))
    assert [binning.name for binning in found] == ["5 mm", "20 mm", "50 mm"]
    coarse = LabelBins(np.arange(0.0, 11.0, 2.0))  # nothing is repeated
    found = binnings(drawn_result(coarse, Label("x", "m"), ("count", "absolute")))
    assert [binning.name for binning in found] == ["2 m"]
    assert [nice_width(width) for width in (0.465, 6.0, 12.0, 38.0)] == [0.5, 5.0, 10.0, 50.0]


@pytest.mark.parametrize("run", [DEPTH, AGES], ids=["depth", "age"])
def test_every_scored_bin_belongs_to_one_coarse_bin_next_to_its_neighbours(run):
    for binning in binnings(run):
        assert binning.members.sum(0).tolist() == run.bins.scored.astype(float).tolist()
        for row, low, high in zip(binning.members, binning.low, binning.high, strict=True):
            fine = np.flatnonzero(row)
            assert np.diff(fine).tolist() == [1] * (len(fine) - 1)
            assert (low, high) == (run.bins.edges[fine[0]], run.bins.edges[fine[-1] + 1])
        assert (binning.high[:-1] == binning.low[1:]).all()
