"""The numbers of depth are those of plain loops, however the images come."""

import json
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from depthbal.errors import ConfigError, DataError, RunFolderError
from depthbal.evaluation import GROUPS, DepthBins, LabelBins, Scores, summarise
from tests.evaluation.helpers import (
    BINS,
    DEPTH_METRICS,
    age_scores,
    ages,
    assert_matches_plain,
    assert_same,
    batch,
    raw_scores,
    share_of,
    sums_of,
)
from tests.reference import plain_joint_histogram

READOUTS = ("raw", "clamped", "mean")
MASKED = {"subsets": ("mask",), "protocol": {"name": "nyud2_dir", "mask": {"seed": 0}}}


@pytest.fixture(scope="module")
def scored():
    """Three read-outs of five images in three batches, with a balanced mask and intervals."""
    preds, target, mask = batch(images=5)
    maps = {"raw": preds, "clamped": preds.clamp(0.7, 10), "mean": preds.clamp(0.7, 10) * 0.9}
    balanced = share_of(mask)
    scores = Scores(BINS, **MASKED)
    for i in (0, 2, 4):
        part = slice(i, i + 2)
        scores.update(
            {name: values[part] for name, values in maps.items()},
            target[part],
            mask[part],
            [f"room {k}" for k in range(5)[part]],
            ["first" if k < 3 else "" for k in range(5)[part]],
            (preds[part] - 0.5, preds[part] + 0.4),
            {"mask": balanced[part]},
        )
    scores.compute()
    return scores, maps, target, mask, balanced


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(17, 23), (1, 1), (300, 250)])  # the last: an image per chunk
def test_all_numbers_equal_plain_loops(dtype, shape):
    preds, target, mask = batch(shape=shape, dtype=dtype)
    scores = raw_scores()
    scores.update({"raw": preds.requires_grad_()}, target, mask)
    if mask[:, 0].any():
        assert_matches_plain(scores.compute(), preds.detach(), target, mask)
    assert not any(values.requires_grad for values in scores.sums_all_raw)


def test_an_empty_group_or_bin_is_a_labelled_gap_and_rows_name_their_edges():
    scores = raw_scores()
    values = torch.full((2, 3), 0.75)
    scores.update({"raw": values}, values)
    result = scores.compute()
    assert result["few"] == {**dict.fromkeys(DEPTH_METRICS), "count": 0, "images": 0}
    assert result["per_bin_mean"]["few"] == {**dict.fromkeys(DEPTH_METRICS), "count": 0, "bins": 0}
    first, last = result["bins"][0], result["bins"][-1]
    assert (first["bin"], first["from_m"], first["to_m"], first["shot"]) == (7, 0.7, 0.8, "medium")
    assert (first["count"], first["images"]) == (6, 2)
    assert (last["bin"], last["count"], last["images"], last["rmse"]) == (99, 0, 0, None)


# ---- read-outs, subsets, protocol ----


def test_the_top_level_is_the_balanced_mask_and_the_main_readout(scored):
    scores, maps, target, mask, balanced = scored
    result = scores.result()
    assert_matches_plain(result, maps["mean"], target, mask & balanced)
    assert_matches_plain(result["all_pixels"], maps["mean"], target, mask)
    assert list(result)[:6] == ["protocol", *GROUPS, "bins"]
    assert list(result["readout"]) == list(READOUTS)
    alone = raw_scores(subsets=("mask",))
    alone.update({"raw": maps["raw"]}, target, mask, subsets={"mask": balanced})
    raw, found = alone.compute(), result["readout"]["raw"]
    for group in GROUPS:
        assert_same(found[group], raw[group])
        assert_same(found["all_pixels"][group], raw["all_pixels"][group])
        assert_same(result["readout"]["mean"][group], result[group])


def test_the_result_is_json_without_nan_and_names_its_protocol(scored):
    result = scored[0].result()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    protocol = result["protocol"]
    expected = {"name": "nyud2_dir", "mask": {"seed": 0}, "readout": "mean", "images": 5}
    expected |= {"min_prediction_m": 1e-3, "pixels": result["overall"]["count"]}
    assert {key: protocol[key] for key in expected} == expected
    assert "pooled over pixels" in protocol["averaging"]
    assert protocol["bins"]["shot_rule"].startswith("NYUD2-DIR")


def test_a_saved_result_comes_back_equal_and_gives_every_number_again(scored, tmp_path):
    scores = scored[0]
    result = scores.save(tmp_path, {"more": 1})
    assert json.loads((tmp_path / "metrics.json").read_text()) == result
    assert result == {**scores.result(), "more": 1}
    bytes_of_file = (tmp_path / "scores.npz").read_bytes()
    scores.save(tmp_path / "again")
    assert (tmp_path / "again" / "scores.npz").read_bytes() == bytes_of_file
    for path in (tmp_path, tmp_path / "scores.npz"):
        loaded = Scores.load(path)
        assert loaded.result() == scores.result()
        assert loaded.compute() == scores.result()
        assert loaded.names == [f"room {k}" for k in range(5)]
        assert loaded.groups == ["first"] * 3 + [""] * 2
        assert loaded.given == MASKED["protocol"]
        for name in ("readouts", "main", "terms", "label", "subsets", "headline", "averaging"):
            assert getattr(loaded, name) == getattr(scores, name), name
    assert summarise(loaded.sums("all"), loaded.bins, loaded.terms) == result["all_pixels"]


def test_what_is_no_result_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"no scores\.npz"):
        Scores.load(tmp_path)
    np.savez_compressed(tmp_path / "pickled.npz", about=np.array([{"a": 1}], dtype=object))
    for damaged in (b"", b"torn", (tmp_path / "pickled.npz").read_bytes()):
        (tmp_path / "scores.npz").write_bytes(damaged)
        with pytest.raises(RunFolderError, match=r"scores\.npz is damaged"):
            Scores.load(tmp_path)
    np.savez(tmp_path / "other.npz", sums=np.zeros(3))
    with pytest.raises(RunFolderError, match=r"other\.npz.*not written by depthbal"):
        Scores.load(tmp_path / "other.npz")


def test_what_is_not_valid_counts_nowhere_whatever_it_is():
    preds, target, mask = batch(images=3)  # the mask of the first image is empty
    scores = raw_scores(subsets=("mask",))
    anything = {"raw": preds.masked_fill(~mask, torch.nan)}, target.masked_fill(~mask, -5.0)
    scores.update(*anything, mask, subsets={"mask": torch.ones_like(mask)})
    assert np.array_equal(scores.sums("all"), sums_of(preds, target, mask, BINS))
    result = scores.compute()
    assert result["protocol"]["images"] == 3
    assert result["per_image_mean"]["overall"]["images"] == 2
    assert result["overall"] == result["all_pixels"]["overall"]  # no depth, whatever the subset is
    assert {example.index for example in scores.examples()} <= {1, 2}


# ---- adding up ----


def test_a_pickled_or_reset_metric_goes_on_counting_in_float64():
    preds, target, mask = batch()
    scores = raw_scores()
    scores.update({"raw": preds[:2] * 2}, target[:2], mask[:2])
    scores.reset()
    scores.half()  # what a trainer does to every module it holds
    scores.update({"raw": preds[:2]}, target[:2], mask[:2])
    copy = pickle.loads(pickle.dumps(scores))
    copy.update({"raw": preds[2:]}, target[2:], mask[2:])
    assert_matches_plain(copy.compute(), preds, target, mask)
    assert copy.names == ["0", "1", "2", "3"]


def results(rank, world):
    """What depth, ages and measured errors say, scored by one of some processes."""
    preds, target, mask = batch(images=5)
    mine = [(i, i if i < 5 else 0) for i in range(rank, 6 if world > 1 else 5, world)]
    order, some = torch.tensor([i if i < 5 else -1 for i, _ in mine]), [i for _, i in mine]
    names = [f"image {i}" for i in some]
    depth = raw_scores(BINS, subsets=("mask",))
    depth.update(
        {"raw": preds[some]},
        target[some],
        mask[some],
        names,
        names,
        (preds[some] - 0.5, preds[some] + 0.4),
        {"mask": share_of(mask)[some]},
        order,
    )
    years = age_scores()
    guessed, truth = (values[some] for values in ages(samples=5))
    years.update({"raw": guessed}, truth, None, names, indices=order)
    measured = raw_scores(BINS, terms=("count", "gap"), main_metric="gap", columns=("truth",))
    errors = {"gap": (guessed - truth).abs()}
    measured.update_errors(errors, truth / 10, names, None, {"truth": truth}, order)
    found = {}
    for name, scores in (("depth", depth), ("ages", years), ("measured", measured)):
        found[name] = scores.compute()
        found[f"{name} names"] = scores.names
    found["joint"], found["coverage"] = depth.joint().tolist(), depth.coverage().tolist()
    found["column"] = measured.column("truth").tolist()
    return found


def score_own_share(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found = results(rank, 2)
        with open(f"{folder}/rank{rank}.json", "w") as file:
            json.dump(found, file)
    finally:
        dist.destroy_process_group()


def test_two_processes_give_every_number_of_one(tmp_path):
    mp.start_processes(score_own_share, (str(tmp_path),), nprocs=2, start_method="fork")
    expected = results(0, 1)
    assert expected["depth names"] == [f"image {i}" for i in range(5)]
    assert expected["depth"]["overall"]["count"] > 100
    for rank in range(2):
        assert_same(json.loads((tmp_path / f"rank{rank}.json").read_text()), expected)


def test_the_state_of_an_image_does_not_grow_with_its_empty_bins():
    scores = raw_scores(LabelBins(np.arange(1001)), terms=("count", "squared"))
    target = torch.arange(50.0)
    scores.update({"raw": target}, target)
    assert sum(values.numel() for values in scores.sums_all_raw) == 50 * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_numbers():
    preds, target, mask = batch()
    results = []
    for device in ("cpu", "cuda"):
        p, t, m = (values.to(device) for values in (preds, target, mask))
        scores = raw_scores(subsets=("mask",)).to(device)
        scores.update({"raw": p}, t, m, interval=(p - 1, p + 1), subsets={"mask": m})
        results.append(scores.compute())
    assert_same(results[1], results[0])


# ---- joint histogram and coverage ----


@pytest.mark.parametrize("bins", [BINS, DepthBins.uniform(0.5), LabelBins([1, 2, 4, 8])])
def test_the_joint_histogram_counts_as_plain_loops_do(bins):
    preds, target, mask = batch(images=3)
    preds.view(-1)[:5] = torch.tensor([-7.0, 0.0, 10.0, 10.000001, 300.0])
    balanced = share_of(mask)
    scores = raw_scores(bins, subsets=("mask",))
    for part in (slice(0, 1), slice(1, 3)):
        scores.update(
            {"raw": preds[part]}, target[part], mask[part], subsets={"mask": balanced[part]}
        )
    for subset, counted in (("all", mask), ("mask", mask & balanced)):
        flat = [values[counted].double().tolist() for values in (preds, target)]
        expected = plain_joint_histogram(*flat, bins.edges.tolist(), bins.scored.tolist())
        found = scores.joint(subset)
        assert found.tolist() == expected
        assert found.sum(1).tolist() == scores.sums(subset)[..., 0].sum(0).tolist()


def test_coverage_per_group_on_mask_and_all_equals_numpy(scored):
    scores, maps, target, mask, balanced = scored
    found = scores.result()["calibration"]
    shots = np.array([BINS.shots[b] or "" for b in range(100)])
    shot = shots[np.minimum((target.numpy() * np.float32(10)).astype(int), 99)]
    error = (target - maps["raw"]).numpy()
    lower, upper = (maps["raw"] - 0.5).numpy(), (maps["raw"] + 0.4).numpy()
    inside = (lower <= target.numpy()) & (target.numpy() <= upper)
    assert 0 < inside.mean() < 1, error
    for subset, counted in (("mask", mask & balanced), ("all", mask)):
        for group in GROUPS:
            of_group = counted.numpy() & (shot != "" if group == "overall" else shot == group)
            assert found[subset][group]["count"] == of_group.sum() > 0
            mean = inside[of_group].mean()
            assert found[subset][group]["coverage"] == pytest.approx(mean, abs=1e-12)
        pairs = scores.coverage(subset)
        assert pairs.sum(0).tolist() == [inside[counted.numpy()].sum(), counted.sum()]


# ---- wrong use ----

ONES = torch.ones(2, 1, 8, 8)
NAN = torch.where(torch.arange(128).view(2, 1, 8, 8) > 124, torch.nan, 1.0)
SOME = {"raw": ONES}
NINE = torch.full((9, 2), 3.0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (({"raw": ONES[..., :4]}, ONES), {}, r"preds \(2, 1, 8, 4\) and target .*resize"),
        ((SOME, ONES, ONES[:, 0] > 0), {}, r"mask \(2, 8, 8\) and target \(2, 1, 8, 8\)"),
        ((SOME, ONES, ONES), {}, "must be boolean"),
        (({"mean": ONES}, ONES), {}, r"expected the read-outs \['raw'\], got \['mean'\]"),
        ((SOME, ONES), {"subsets": {"mask": ONES > 0}}, "expected the subsets"),
        ((SOME, ONES), {"names": ["a.png"]}, "1 names for 2 images"),
        (({"raw": NAN}, ONES), {}, r"preds hold 3 values.* of 128 under.*image 1 of"),
        (({"raw": NAN / 0}, ONES), {"names": ["a", "b"]}, "preds hold 128 values.* in a, b; mask"),
        (({"raw": NINE / 0}, NINE), {"names": [*"abcdefghi"]}, "in a, b, c, d, e and 4 more im"),
        ((SOME, NAN), {}, "target hold 3 values"),
        ((SOME, ONES), {"interval": (NAN, ONES)}, "not finite"),
    ],
)
def test_a_batch_that_cannot_be_scored_is_named(arguments, options, message):
    with pytest.raises(DataError, match=message):
        raw_scores().update(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"main": "best"}, "'best' is not among"),
        ({"main_metric": "mpjpe"}, "'mpjpe' is not among"),
        ({"terms": ("squared",)}, 'must hold "count"'),
        ({"balanced": ("gm",)}, "'gm' is not among"),
    ],
)
def test_settings_that_contradict_each_other_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Scores(BINS, **options)


def test_nothing_to_score_is_an_error_that_says_what_to_check():
    scores = raw_scores()
    with pytest.raises(DataError, match="no image"):
        scores.compute()
    scores.update({"raw": ONES}, ONES, ONES > 5)
    with pytest.raises(DataError, match=r"valid pixel.*unit of the depth \(m\)"):
        scores.compute()


def test_labels_beyond_the_last_bin_are_counted_by_the_prediction_and_have_no_error(tmp_path):
    bins = DepthBins([1.0, 2.0, 4.0, 8.0], ["many", "medium", "few"])
    generator = torch.Generator().manual_seed(0)
    target, preds = 1 + 7 * torch.rand(2, 5, 1, 6, 7, generator=generator)
    beyond = torch.rand(target.shape, generator=generator) < 0.3
    preds = torch.where(beyond, 10 * preds / 8, preds)
    found, plain = raw_scores(bins), raw_scores(bins)
    for part in (slice(0, 2), slice(2, 5)):
        found.update({"raw": preds[part]}, target[part], ~beyond[part], beyond=beyond[part])
        plain.update({"raw": preds[part]}, target[part], ~beyond[part])
    result, other = found.compute(), plain.compute()
    listed = [float(p) for p in preds[beyond]]
    rows = [(None, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, None)]
    counts = [sum((a or -1e9) <= p < (b or 1e9) for p in listed) for a, b in rows]
    assert result.pop("beyond") == {
        "from_m": 8.0,
        "count": len(listed),
        "nearer": pytest.approx(sum(p < 8 for p in listed) / len(listed)),
        "nearer_than_half": pytest.approx(sum(p < 4 for p in listed) / len(listed)),
        "bins": [
            {"from_m": a, "to_m": b, "count": n}
            for (a, b), n in zip(rows, counts, strict=True)
            if n
        ],
    }
    assert "beyond" not in other
    assert result == other
    found.save(tmp_path)
    assert np.array_equal(Scores.load(tmp_path).beyond(), found.beyond())
