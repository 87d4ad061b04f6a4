import numpy as np
import pytest
import torch

from depthbal.evaluation import DepthBins, Evaluation, LabelBins, joint_histogram
from tests.evaluation.test_metrics import batch
from tests.reference import plain_joint_histogram

BINS = DepthBins.nyud2()


def flat(values, mask):
    return values[mask].double().tolist()


@pytest.mark.parametrize("bins", [BINS, DepthBins.uniform(0.5), LabelBins([1, 2, 4, 8])])
def test_it_counts_as_plain_loops_do(bins):
    preds, target, mask = batch(images=3)
    preds.view(-1)[:5] = torch.tensor([-7.0, 0.0, 10.0, 10.000001, 300.0])
    evaluation = Evaluation(bins, readouts=("raw",), main="raw")
    balanced = torch.rand(mask.shape, generator=torch.Generator().manual_seed(4)) < 0.3
    evaluation.update({"raw": preds[:1]}, target[:1], mask[:1], balanced[:1])
    evaluation.update({"raw": preds[1:]}, target[1:], mask[1:], balanced[1:])
    arrays = evaluation.per_image()
    for name, counted in (("joint_all", mask), ("joint_mask", mask & balanced)):
        expected = plain_joint_histogram(
            flat(preds, counted), flat(target, counted), bins.edges.tolist(), bins.scored.tolist()
        )
        assert arrays[name].tolist() == expected
        assert arrays[name].dtype == np.int64
        assert arrays[name].shape == (len(bins), len(bins) + 2)
        sums = arrays[name.replace("joint", "sums")]
        assert arrays[name].sum(1).tolist() == sums[..., 0].sum(0).tolist()


def test_predictions_beyond_either_end_have_columns_of_their_own():
    target = torch.tensor([0.75, 9.95, 42.0])
    preds = torch.tensor([-1.0, 10.5, 10.0])
    joint = joint_histogram(preds, BINS.index(target), BINS)
    assert (joint[7, 0], joint[99, 101], joint[99, 100]) == (1, 1, 1)
    assert joint.sum() == 3


def test_a_prediction_clamped_to_the_last_edge_lies_in_the_last_bin():
    clamped = torch.tensor([25.0]).clamp(0.7, 10.0)
    for bins in (BINS, DepthBins.uniform(0.5)):
        assert bins.column(clamped).item() == len(bins)


def test_depth_beyond_the_last_bin_counts_in_it():
    target = torch.full((1, 1, 2, 2), 37.0)
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    evaluation.update({"raw": target}, target, target > 0)
    result = evaluation.result()
    assert result["bins"][-1]["count"] == result["few"]["count"] == 4
    assert evaluation.per_image()["joint_all"][99].tolist() == [0] * 101 + [4]
