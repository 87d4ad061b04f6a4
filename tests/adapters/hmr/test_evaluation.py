"""The scores of a run: perfect predictions, ground truth by gender, balanced means, shots."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.evaluation import ERRORS, evaluate_network, run_bins
from depthbal.adapters.hmr.head import Prediction
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.adapters.hmr.table import print_metrics, summary
from depthbal.errors import DataError, RunFolderError
from depthbal.priors import Histogram
from depthbal.training.runs import RunFolder

ROWS = {"coco": 80}


class Oracle(nn.Module):
    """Knows the test bodies, in order, and misses them by what it is told."""

    def __init__(self, data: HmrDataModule, betas: float = 0.0) -> None:
        super().__init__()
        assert data.test_set is not None
        people = data.test_set.people
        self.rotmats = rotmats_of(torch.from_numpy(people.pose))
        self.betas = torch.from_numpy(people.betas) + betas
        self.seen = 0

    def forward(self, features: torch.Tensor) -> Prediction:
        rows = slice(self.seen, self.seen + len(features))
        self.seen += len(features)
        return Prediction(self.rotmats[rows], self.betas[rows], torch.zeros(len(features), 3))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("spin"), rows=ROWS, test_rows=70)


def evaluated(root: Path, folder: Path, betas: float = 0.0, **options: Any) -> dict[str, Any]:
    data = HmrDataModule(str(root), batch_size=32, num_workers=0, **options)
    data.setup("fit")
    data.use_backbone(None, "cpu")
    run = RunFolder(folder)
    data.train_histogram().save(run.histogram)
    network: Any = Oracle(data, betas)
    return evaluate_network(run, network, data, {"name": "3dpw"})


def test_true_predictions_have_no_error_against_the_neutral_truth(
    root: Path, tmp_path: Path
) -> None:
    metrics = evaluated(root, tmp_path, ground_truth="neutral")
    for name in ERRORS:
        assert metrics["overall"][name] == pytest.approx(0, abs=1e-3)
        assert metrics["balanced"]["vertex"][name]["tail10"] == pytest.approx(0, abs=1e-3)
    assert metrics["protocol"]["ground_truth"].startswith("neutral")


def test_the_gendered_truth_costs_joints_but_not_vertices_as_released(
    root: Path, tmp_path: Path
) -> None:
    # predictions are neutral for the joints, and of the truth's gender for the vertices
    metrics = evaluated(root, tmp_path, ground_truth="gendered")
    assert metrics["overall"]["mpjpe"] > 1
    assert metrics["overall"]["mpvpe"] == pytest.approx(0, abs=1e-3)
    assert metrics["protocol"]["ground_truth"].startswith("gendered")


def test_bodies_of_unknown_gender_are_told_from_gendered_ones(tmp_path: Path) -> None:
    copy = write_synthetic(tmp_path / "data", rows=ROWS, test_rows=10)
    data = HmrDataModule(str(copy), batch_size=32, num_workers=0)
    data.setup("fit")
    data.use_backbone(None, "cpu")
    assert data.test_set is not None
    run = RunFolder(tmp_path / "run")
    data.train_histogram().save(run.histogram)
    data.test_set.people.gender[3:] = -1
    facts = {"name": "3dpw"}
    network: Any = Oracle(data)
    metrics = evaluate_network(run, network, data, facts)
    assert metrics["protocol"]["ground_truth"].startswith("gendered for 3 of 10, neutral for the")
    data.test_set.people.gender[:] = -1
    network = Oracle(data)
    metrics = evaluate_network(run, network, data, facts)
    assert metrics["protocol"]["ground_truth"].startswith("neutral")
    assert metrics["overall"]["mpjpe"] == pytest.approx(0, abs=1e-3)


def test_balanced_means_are_those_of_the_files_by_brute_force(root: Path, tmp_path: Path) -> None:
    metrics = evaluated(root, tmp_path, betas=1.0)
    with np.load(tmp_path / "per_image.npz") as arrays:
        sums, terms = arrays["sums_all"].sum(1), arrays["terms"].tolist()
    errors = sums[:, terms.index("mpjpe")]
    data = HmrDataModule(str(root), num_workers=0)
    data.setup("test")
    assert data.test_set is not None
    pose = data.test_set.people.pose.reshape(-1, 24, 3)
    far = np.linalg.norm(pose, axis=-1).mean(1)  # the mean pose is the rest pose
    far = np.where(np.linalg.norm(pose, axis=-1).max(1) < np.pi, far, np.nan)
    assert np.isfinite(far).all()
    described = metrics["balanced"]["geodesic"]
    farthest = np.argsort(-far)
    assert described["mpjpe"]["tail10"] == pytest.approx(errors[farthest[:7]].mean(), rel=1e-6)
    assert described["mpjpe"]["tail5"] == pytest.approx(errors[farthest[:3]].mean(), rel=1e-6)
    index = ((far - far.min()) / ((far.max() - far.min()) / 100) - 0.001).astype(int)
    of_bins = [errors[index == b].mean() for b in np.unique(index)]
    assert described["mpjpe"]["all"] == pytest.approx(np.mean(of_bins), rel=1e-4)
    assert described["bins_used"] == len(of_bins)
    assert sum(described["counts"]) == 70
    low, high = described["mpjpe"]["intervals_95"]["tail10"]
    assert low < described["mpjpe"]["tail10"] < high


def test_the_result_files_say_label_main_metric_and_protocol(root: Path, tmp_path: Path) -> None:
    evaluated(root, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    protocol = metrics["protocol"]
    assert protocol["label"] == {"name": "distance to the mean pose", "unit": "mm"}
    assert protocol["main_metric"] == "mpjpe"
    assert len(metrics["bins"]) == 100
    assert metrics["overall"]["count"] == 70
    with np.load(tmp_path / "per_image.npz") as arrays:
        assert set(arrays["groups"].tolist()) == {f"sequence_{k:03d}" for k in range(4)}


def test_shots_come_from_the_training_bodies_share_per_region(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match=r"histogram\.json"):
        run_bins(run)
    Histogram([0.0, 1.0, 2.0, 3.0], [9900, 50, 10]).save(run.histogram)
    assert run_bins(run).shots == ("many", "medium", "few")


def test_a_missing_body_model_is_named(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "data", rows=ROWS, test_rows=20)
    (root / "smpl" / "SMPL_MALE.npz").unlink()
    with pytest.raises(DataError, match=r"SMPL_MALE\.pkl"):
        evaluated(root, tmp_path)
    evaluated(root, tmp_path, ground_truth="neutral")


def test_the_table_has_the_promised_form(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    metrics = evaluated(root, tmp_path, betas=1.0)
    row = summary(metrics)
    assert list(row) == ["mpjpe", "pa_mpjpe", "mpvpe", "bmpjpe", "bpa_mpjpe", "bmpvpe"]
    assert list(row["bmpjpe"]) == ["all", "tail10", "tail5"]
    assert row["bmpjpe"]["all"] == metrics["balanced"]["vertex"]["mpjpe"]["all"]
    print_metrics(Console(width=100), metrics)
    shown = capsys.readouterr().out
    assert "geodesic" in shown
    assert f"{row['bpa_mpjpe']['tail5']:.1f}" in shown
    assert "gendered" in shown
