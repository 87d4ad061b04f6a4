from types import SimpleNamespace

import pytest
import torch

from depthbal.training.finite_loss import FiniteLoss, TrainingError

TRAINER = SimpleNamespace(
    current_epoch=3,
    global_step=120,
    strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
)


def steps(guard: FiniteLoss, losses: list[torch.Tensor]) -> None:
    for index, loss in enumerate(losses):
        guard.on_train_batch_end(TRAINER, None, {"loss": loss}, None, index)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_stops_at_once_on_a_cpu(bad):
    with pytest.raises(TrainingError, match=r"epoch 3, at step 120.*learning rate"):
        steps(FiniteLoss(), [torch.tensor(1.0), torch.tensor(bad)])


def test_negative_losses_are_fine():
    steps(FiniteLoss(), [torch.tensor(-3.0)] * 10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_bad_loss_on_a_gpu_is_found_within_n_steps():
    fine, bad = torch.tensor(1.0).cuda(), torch.tensor(float("nan")).cuda()
    guard = FiniteLoss(every_n_steps=5)
    steps(guard, [fine, bad, fine, fine])
    with pytest.raises(TrainingError):
        guard.on_train_batch_end(TRAINER, None, {"loss": fine}, None, 4)


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_epoch_end"])
def test_parameters_are_looked_at_before_validation_and_before_a_checkpoint(hook):
    network = torch.nn.Linear(2, 2)
    look = getattr(FiniteLoss(), hook)
    look(TRAINER, network)
    with torch.no_grad():
        network.weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="parameters"):
        look(TRAINER, network)
