"""The claim of the default command, on less data: balancing lowers the error of rare poses."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.distance import balanced_error
from depthbal.adapters.hmr.meshes import Errors
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.rotations import rotmats_of
from depthbal.adapters.hmr.synthetic import FEATURES, write_synthetic
from depthbal.adapters.hmr.task import HmrTask, fit_pose_prior
from depthbal.losses import GAILoss, MSELoss, RegressionLoss

EPOCHS = 6


def tail_error(root: Path, criterion: RegressionLoss, seed: int) -> float:
    """Train with a plain loop and return the mean MPJPE of the farthest 10 % of the test poses."""
    data = HmrDataModule(
        str(root), datasets=["coco"], batch_size=32, num_workers=0, seed=seed, val_fraction=0.0
    )
    data.setup("fit")
    data.use_backbone(None, "cpu")
    torch.manual_seed(seed)
    network = SpinNetwork(features=FEATURES, dropout=0.0)
    network.head.iterations = 1  # affine all the same, and three times as fast
    task = HmrTask(network, criterion)
    task.model.start_from(data.mean_params())
    if isinstance(criterion, GAILoss):
        criterion.set_prior(fit_pose_prior(data, components=8, rows=500, floor=1e-2))
    groups = [{"params": task.model.parameters(), "lr": 1e-3}]
    groups += [{"params": criterion.noise_parameters(), "lr": 3e-2}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    loader = data.train_dataloader()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            task.compute_loss(batch).backward()
            optimizer.step()
    measure = Errors(root, data.ground_truth)
    errors, far = [], []
    with torch.inference_mode():
        for batch in data.test_dataloader():
            preds = task.model.eval()(batch["input"])
            truth = rotmats_of(batch["pose"]), batch["betas"]
            found, distances = measure((preds.rotmats, preds.betas), truth, batch["gender"])
            errors.append(found["mpjpe"])
            far.append(distances.vertex)
    return balanced_error(torch.cat(errors).numpy(), torch.cat(far).numpy()).values["tail10"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small steps wait for a second thread longer than it helps them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_gai_lowers_the_error_of_the_farthest_tenth_in_the_median_of_five_seeds(
    tmp_path: Path,
) -> None:
    ratios = []
    for seed in range(5):
        root = write_synthetic(tmp_path / str(seed), seed, rows={"coco": 400}, test_rows=300)
        gai = GAILoss(
            event_dim=1, noise="learned", init_noise_sigma=0.3, mse_weight=1, balance_weight=0.95
        )
        ratios.append(tail_error(root, gai, seed) / tail_error(root, MSELoss(event_dim=1), seed))
    assert statistics.median(ratios) < 0.95, ratios
