import math

import pytest
import torch

from depthbal.training.schedules import WarmupCosine
from tests.training.helpers import checkpoint_of


def optimizer_at(peak: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)


def rates(schedule: WarmupCosine, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return seen


def test_the_rate_rises_linearly_and_falls_with_half_a_cosine():
    schedule = WarmupCosine(optimizer_at(3.0), warmup_share=0.2, final=0.1)
    schedule.set_total_steps(10)
    rise = [1.0, 2.0]
    fall = [3 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 8)) / 2) for k in range(8)]
    assert rates(schedule, 10) == pytest.approx(rise + fall)


def test_a_restored_schedule_continues_on_the_length_of_the_new_training():
    first = WarmupCosine(optimizer_at(1.0))
    first.set_total_steps(10)
    rates(first, 5)
    resumed = WarmupCosine(optimizer_at(1.0))
    resumed.load_state_dict(first.state_dict())
    resumed.set_total_steps(20)
    whole = WarmupCosine(optimizer_at(1.0))
    whole.set_total_steps(20)
    assert rates(resumed, 15) == pytest.approx(rates(whole, 20)[5:])


@pytest.mark.parametrize("wrong", [{"warmup_share": 1.5}, {"final": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        WarmupCosine(optimizer_at(1.0), **wrong)


def test_the_schedule_ends_with_the_training(finished_run):
    (state,) = checkpoint_of(finished_run)["lr_schedulers"]
    assert state["last_epoch"] == 2 * 3  # epochs, and 12 images in batches of 4
    weights, _ = state["_last_lr"]
    assert weights == pytest.approx(0.0, abs=1e-12)
