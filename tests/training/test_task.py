import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from depthbal.errors import ConfigError
from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss
from depthbal.priors import Histogram
from depthbal.training.task import DepthTask
from tests.training.helpers import DropoutNet, checkpoint_of, tiny_config, train_tiny

HISTOGRAM = Histogram([1.0, 2.0, 3.0, 4.0], [6, 3, 1])


def batch(depth: torch.Tensor) -> dict:
    return {"image": torch.ones(len(depth), 3, *depth.shape[-2:]), "depth": depth}


def constant_network(value: float) -> nn.Module:
    network = nn.Conv2d(3, 1, 1)
    nn.init.zeros_(network.weight)
    nn.init.constant_(network.bias, value)
    return network


@pytest.mark.parametrize("criterion", [MSELoss, nn.MSELoss, GAILoss, BMCLoss, BNILoss])
def test_depth_below_the_limit_counts_for_no_loss(criterion):
    task = DepthTask(constant_network(2.0), criterion(), min_depth=0.7)
    task.initialise(HISTOGRAM)
    valid = torch.tensor([[[[1.0, 2.0, 3.5]]]])
    beside = torch.tensor([[[[1.0, 2.0, 3.5, 0.0, 0.69, 0.1]]]])
    torch.testing.assert_close(task.compute_loss(batch(beside)), task.compute_loss(batch(valid)))


@pytest.mark.parametrize("criterion", [MSELoss(), nn.SmoothL1Loss()])
def test_a_batch_without_valid_depth_has_loss_zero_and_a_gradient(criterion):
    task = DepthTask(constant_network(2.0), criterion)
    loss = task.compute_loss(batch(torch.zeros(1, 1, 2, 2)))
    loss.backward()
    assert loss.item() == 0
    assert task.model.bias.grad.item() == 0


def test_a_foreign_loss_gets_the_valid_pixels():
    task = DepthTask(constant_network(2.0), nn.L1Loss())
    loss = task.compute_loss(batch(torch.tensor([[[[0.0, 5.0, 3.0]]]])))
    assert loss.item() == pytest.approx((3.0 + 1.0) / 2)


def test_predictions_of_another_size_are_an_error_that_names_both_and_the_way_out():
    task = DepthTask(nn.Conv2d(3, 1, 2, stride=2), MSELoss())
    with pytest.raises(ConfigError, match=r"\(1, 1, 4, 4\) and target \(1, 1, 8, 8\).*resize"):
        task.compute_loss(batch(torch.ones(1, 1, 8, 8)))


def test_resize_brings_predictions_to_the_targets():
    class Ramp(nn.Module):
        def forward(self, images):
            return torch.tensor([[[[0.0, 1.0, 2.0]]]]).expand(len(images), 1, 1, 3)

    task = DepthTask(Ramp(), MSELoss(), min_depth=-1.0, resize="target")
    truth = torch.tensor([[[[0.0, 0.5, 1.0, 1.5, 2.0]]]])  # linear: corners stay corners
    assert task.compute_loss(batch(truth)).item() == pytest.approx(0.0, abs=1e-12)


def test_the_bias_starts_at_the_mean_depth_for_every_loss():
    for criterion in (MSELoss(), GAILoss(n_components=2)):
        task = DepthTask(DropoutNet(), criterion)
        task.initialise(HISTOGRAM)
        expected = (6 * 1.5 + 3 * 2.5 + 1 * 3.5) / 10
        assert task.model.layers[-1].bias.item() == pytest.approx(expected)


def test_a_given_prior_is_kept():
    given = Histogram([1.0, 2.0, 3.0], [1, 1])
    task = DepthTask(DropoutNet(), BNILoss(given))
    task.initialise(HISTOGRAM)
    assert task.criterion.prior.weights.tolist() == [0.5, 0.5]


def test_sigma_is_in_its_own_group_without_decay():
    task = DepthTask(
        DropoutNet(),
        GAILoss(noise="learned"),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1),
        noise_lr=0.02,
    )
    weights, noise = task.configure_optimizers().param_groups
    assert noise["params"] == task.criterion.noise_parameters()
    assert (noise["lr"], noise["weight_decay"]) == (0.02, 0.0)
    assert (weights["lr"], weights["weight_decay"]) == (1e-3, 0.1)
    assert len(weights["params"]) == len(list(task.model.parameters()))


def test_a_fixed_sigma_has_no_group():
    task = DepthTask(DropoutNet(), GAILoss())
    assert [group["name"] for group in task.configure_optimizers().param_groups] == ["weights"]


def test_the_schedule_leaves_sigma_alone(tmp_path):
    halving = {
        "class_path": "torch.optim.lr_scheduler.StepLR",
        "init_args": {"step_size": 1, "gamma": 0.5},
    }
    config = tiny_config(tmp_path / "tiny.yaml", model={"lr_scheduler": halving})
    run = train_tiny(config, tmp_path / "run")
    content = checkpoint_of(run)
    weights, noise = content["optimizer_states"][0]["param_groups"]
    assert weights["lr"] == pytest.approx(0.01 / 4)
    assert noise["lr"] == pytest.approx(0.01)
    assert content["state_dict"]["criterion.noise.log_sigma"].item() != 0  # it has learned


def test_frozen_parameters_are_left_out():
    network = DropoutNet()
    network.layers[0].requires_grad_(False)
    (group,) = DepthTask(network, MSELoss()).configure_optimizers().param_groups
    assert len(group["params"]) == len(list(network.parameters())) - 2


def test_the_task_trains_with_a_plain_trainer_and_loader(tmp_path):
    task = DepthTask(DropoutNet(), MSELoss())
    before = task.model.layers[-1].weight.detach().clone()
    samples = [{"image": torch.randn(3, 8, 8), "depth": torch.full((1, 4, 4), 3.0)}] * 4
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, torch.utils.data.DataLoader(samples, batch_size=2))
    assert not torch.equal(task.model.layers[-1].weight, before)
