import json

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import (
    LABEL_TERMS,
    DepthBins,
    EigenEvaluation,
    Evaluation,
    Label,
    LabelBins,
    summarise,
)
from tests.evaluation.test_metrics import assert_equal, assert_matches_plain, batch
from tests.evaluation.test_scores import AGES, ages
from tests.reference import plain_label_scores

BINS = DepthBins.nyud2()
YEARS = Label("age", "years")


def age_evaluation(**options):
    return Evaluation(
        AGES,
        terms=LABEL_TERMS,
        label=YEARS,
        main_metric="mae",
        protocol={"name": "agedb"},
        **options,
    )


def test_ages_are_scored_on_all_samples_without_a_mask():
    preds, target = ages()
    evaluation = age_evaluation()
    for part in (slice(0, 300), slice(300, 400)):
        maps = {"raw": preds[part], "clamped": preds[part].clamp(0, 120), "mean": preds[part] + 1}
        evaluation.update(maps, target[part])
    result = evaluation.result()
    assert_equal(result["overall"], plain_label_scores((preds + 1).numpy(), target.numpy()))
    raw = plain_label_scores(preds.numpy(), target.numpy())
    assert_equal(result["readout"]["raw"]["overall"], raw)
    assert not {"all_pixels", "mask"} & set(result)
    assert "all_pixels" not in result["readout"]["raw"]
    protocol = result["protocol"]
    assert protocol["label"] == {"name": "age", "unit": "years"}
    assert (protocol["main_metric"], protocol["samples"]) == ("mae", 400)
    assert not [key for key in protocol if "pixel" in key or key.startswith(("min_", "silog"))]
    assert protocol["gm"] == "exp(mean ln max(|prediction - truth|, 0.001 years))"
    assert "mask" not in protocol["averaging"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    arrays = evaluation.per_image()
    assert arrays["sums_all"].shape == (400, 121, len(LABEL_TERMS))
    assert not [name for name in arrays if "mask" in name]
    assert summarise(arrays["sums_all"], AGES, LABEL_TERMS)["few"] == result["few"]


def test_a_single_readout_needs_no_section_of_readouts():
    evaluation = age_evaluation(readouts=("raw",), main="raw")
    evaluation.update({"raw": torch.tensor([30.0])}, torch.tensor([31.0]))
    assert "readout" not in evaluation.result()


def test_depth_without_a_mask_has_the_numbers_of_all_pixels():
    preds, target, mask = batch()
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    evaluation.update({"raw": preds}, target, mask)
    assert_matches_plain(evaluation.result(), preds, target, mask)


def test_a_balanced_mask_for_some_batches_only_is_refused():
    target = torch.full((1, 1, 2, 2), 3.0)
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    evaluation.update({"raw": target}, target, balanced=target > 0)
    with pytest.raises(DataError, match="balanced mask for every batch or for none"):
        evaluation.update({"raw": target}, target)


def test_scenes_label_and_metric_are_saved_with_the_sums():
    target = torch.full((2, 1, 3, 3), 2.0)
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    evaluation.update({"raw": target}, target, names=["a", "b"], groups=["kitchen", ""])
    evaluation.update({"raw": target}, target)
    arrays = evaluation.per_image()
    assert arrays["groups"].tolist() == ["kitchen", "", "", ""]
    assert arrays["names"].tolist() == ["a", "b", "2", "3"]
    assert [str(arrays[f"label_{part}"]) for part in ("name", "unit")] == ["depth", "m"]
    assert str(arrays["main_metric"]) == "rmse"
    with pytest.raises(DataError, match="1 groups for 2 images"):
        evaluation.update({"raw": target}, target, groups=["kitchen"])


def test_the_written_file_holds_the_arrays_and_is_the_same_each_time(tmp_path):
    preds, target, mask = batch()
    evaluation = Evaluation(BINS, readouts=("raw", "mean"))
    balanced = torch.rand(mask.shape) < 0.3
    evaluation.update(
        {"raw": preds, "mean": preds}, target, mask, balanced, interval=(preds - 1, preds + 1)
    )
    evaluation.save_per_image(tmp_path / "one.npz")
    evaluation.save_per_image(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    expected = evaluation.per_image()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as saved:
        assert set(saved.files) == set(expected)
        for name, array in expected.items():
            assert saved[name].dtype == array.dtype
            assert np.array_equal(saved[name], array), name


def test_the_state_of_an_image_does_not_grow_with_its_empty_bins():
    fine = LabelBins(np.arange(1001))
    evaluation = Evaluation(
        fine, ("raw",), "raw", terms=LABEL_TERMS, label=YEARS, main_metric="mae"
    )
    target = torch.arange(50.0)
    evaluation.update({"raw": target}, target)
    values = evaluation._sums["all", "raw"]._values
    assert sum(array.nbytes for array in values) == 50 * len(LABEL_TERMS) * 8


def test_an_image_without_a_valid_pixel_counts_nowhere():
    preds, target, mask = batch(images=3)  # the mask of the first image is empty
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    evaluation.update({"raw": preds}, target, mask, mask)
    result = evaluation.result()
    assert_matches_plain(result, preds, target, mask)
    assert result["protocol"]["images"] == 3
    assert result["per_image_mean"]["overall"]["images"] == 2
    assert {example.index for example in evaluation.examples()} <= {1, 2}


@pytest.mark.parametrize("make", [Evaluation, EigenEvaluation])
def test_predictions_that_are_not_finite_name_their_images(make):
    target = torch.full((3, 1, 48, 64), 3.0)
    preds = target.clone()
    preds[1, 0, 20, 20] = float("nan")
    preds[2, 0, 20, 20:22] = float("inf")
    evaluation = make(BINS, readouts=("raw",), main="raw")
    with pytest.raises(DataError, match=r"preds hold 3 values .* in kitchen/2, kitchen/3; mask"):
        evaluation.update(
            {"raw": preds}, target, target > 0, names=["kitchen/1", "kitchen/2", "kitchen/3"]
        )
    with pytest.raises(DataError, match=r"images \[1, 2\] of the batch"):
        evaluation.update({"raw": preds}, target, target > 0)


def test_a_long_list_of_images_is_cut():
    target = torch.full((9, 2), 3.0)
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    with pytest.raises(DataError, match="in a, b, c, d, e and 4 more images"):
        evaluation.update({"raw": target / 0}, target, names=list("abcdefghi"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_arrays():
    preds, target, mask = batch()
    arrays = []
    for device in ("cpu", "cuda"):
        p, t, m = (values.to(device) for values in (preds, target, mask))
        evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
        evaluation.update({"raw": p}, t, m, m, interval=(p - 1, p + 1))
        arrays.append(evaluation.per_image())
    for name in ("sums_all", "sums_mask", "joint_all", "coverage_mask"):
        np.testing.assert_allclose(arrays[1][name], arrays[0][name], rtol=1e-12, atol=1e-12)


def test_a_metric_that_does_not_follow_from_the_terms_is_refused():
    with pytest.raises(ConfigError, match="'abs_rel' is not among"):
        Evaluation(AGES, terms=LABEL_TERMS, label=YEARS, main_metric="abs_rel")
    with pytest.raises(ConfigError, match='must hold "count"'):
        Evaluation(AGES, terms=("squared",), label=YEARS)
    evaluation = age_evaluation(readouts=("raw",), main="raw")
    evaluation.update({"raw": torch.tensor([3.0])}, torch.tensor([-5.0]))
    with pytest.raises(DataError, match=r"unit of the age \(years\)"):
        evaluation.result()
