import io
import json

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import DepthBins, Evaluation, summarise
from tests.evaluation.test_metrics import assert_matches_plain, batch

BINS = DepthBins.nyud2()
READOUTS = ("raw", "clamped", "mean")
GROUPS = ("overall", "many", "medium", "few")


@pytest.fixture
def scored():
    preds, target, mask = batch(images=5)
    maps = {"raw": preds, "clamped": preds.clamp(0.7, 10), "mean": preds.clamp(0.7, 10) * 0.9}
    balanced = torch.rand(target.shape, generator=torch.Generator().manual_seed(9)) < 0.3
    evaluation = Evaluation(BINS, protocol={"name": "nyud2_dir", "mask": {"seed": 0}})
    for i in (0, 2, 4):
        part = {name: values[i : i + 2] for name, values in maps.items()}
        evaluation.update(part, target[i : i + 2], mask[i : i + 2], balanced[i : i + 2])
    return evaluation, maps, target, mask, balanced


def test_the_top_level_is_the_balanced_mask_and_the_main_readout(scored):
    evaluation, maps, target, mask, balanced = scored
    result = evaluation.result()
    assert_matches_plain(result, maps["mean"], target, mask & balanced)
    assert_matches_plain(result["all_pixels"], maps["mean"], target, mask)


def test_every_readout_is_reported_with_and_without_the_mask(scored):
    evaluation, maps, target, mask, balanced = scored
    result = evaluation.result()
    assert list(result["readout"]) == list(READOUTS)
    assert result["readout"]["mean"]["overall"] == result["overall"]
    raw = Evaluation(BINS, readouts=("raw",), main="raw")
    raw.update({"raw": maps["raw"]}, target, mask, balanced)
    for group in GROUPS:
        found, alone = result["readout"]["raw"], raw.result()
        assert found[group] == pytest.approx(alone[group], rel=1e-12)
        assert found["all_pixels"][group] == pytest.approx(alone["all_pixels"][group], rel=1e-12)


def test_the_result_is_json_without_nan_and_names_its_protocol(scored):
    result = scored[0].result()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    protocol = result["protocol"]
    assert protocol["name"] == "nyud2_dir"
    assert protocol["mask"] == {"seed": 0}
    assert protocol["readout"] == "mean"
    assert protocol["min_prediction_m"] == 1e-3
    assert protocol["images"] == 5
    assert protocol["pixels"] == result["overall"]["count"]
    assert "pooled over pixels" in protocol["averaging"]
    assert protocol["bins"]["shot_rule"].startswith("NYUD2-DIR")
    assert list(result)[:6] == ["protocol", *GROUPS, "bins"]


def test_every_number_can_be_computed_again_from_the_saved_sums(scored):
    evaluation = scored[0]
    file = io.BytesIO()
    np.savez_compressed(file, **evaluation.per_image())
    file.seek(0)
    saved = np.load(file, allow_pickle=False)
    bins = DepthBins(saved["edges"], saved["shots"].tolist(), scored=saved["scored"])
    terms = saved["terms"].tolist()
    result = evaluation.result()
    top = summarise(saved["sums_mask"], bins, terms)
    assert top == {key: result[key] for key in top}
    assert summarise(saved["sums_all"], bins, terms) == result["all_pixels"]
    for name in ("raw", "clamped"):
        again = summarise(saved[f"sums_mask_{name}"], bins, terms)
        everywhere = summarise(saved[f"sums_all_{name}"], bins, terms)
        for group in GROUPS:
            assert again[group] == result["readout"][name][group]
            assert everywhere[group] == result["readout"][name]["all_pixels"][group]
    assert saved["sums_all"].shape == (5, 100, len(terms))
    assert saved["names"].tolist() == ["0", "1", "2", "3", "4"]


def test_names_of_images_are_kept():
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    target = torch.ones(2, 1, 3, 3)
    evaluation.update({"raw": target}, target, None, target > 0, names=["a.png", "b.png"])
    assert evaluation.per_image()["names"].tolist() == ["a.png", "b.png"]
    with pytest.raises(DataError, match="1 names for 2 images"):
        evaluation.update({"raw": target}, target, None, target > 0, names=["a.png"])


def test_a_pixel_of_the_balanced_mask_without_depth_does_not_count():
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    target = torch.tensor([[[[1.0, 0.0]]]])
    evaluation.update({"raw": target}, target, target > 0, torch.ones(1, 1, 1, 2).bool())
    assert evaluation.result()["overall"]["count"] == 1


def test_wrong_use_is_named():
    target = torch.ones(1, 1, 3, 3)
    with pytest.raises(ConfigError, match="'best' is not among"):
        Evaluation(BINS, main="best")
    evaluation = Evaluation(BINS)
    with pytest.raises(DataError, match="no image"):
        evaluation.result()
    with pytest.raises(DataError, match=r"expected the read-outs.*got \['raw'\]"):
        evaluation.update({"raw": target}, target, None, target > 0)
    one = Evaluation(BINS, readouts=("raw",), main="raw")
    with pytest.raises(DataError, match=r"preds .* differ"):
        one.update({"raw": target[..., :2]}, target, None, target > 0)
    one.update({"raw": target}, target, target > 5, target > 0)
    with pytest.raises(DataError, match="valid pixel"):
        one.result()
