"""How updates are computed, at which rate, on which device and in which precision."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from depthbal.errors import ConfigError
from depthbal.evaluation import DEPTH
from depthbal.losses import BMCLoss, BNILoss, GAILoss, MSELoss
from depthbal.losses.noise import DepthNoise, NoiseModule, check_noise
from depthbal.models import ResNetMFF
from depthbal.training import DepthTask, open_run
from depthbal.training.optimisation import (
    default_precision,
    noise_values,
    suit_device,
    usable_accelerator,
)
from depthbal.training.schedules import WarmupCosine
from tests.losses.checks import LONG_TAIL, RANGE
from tests.training.helpers import (
    DropoutNet,
    change_checkpoint,
    checkpoint_of,
    fit_prior,
    logged,
    loss_of,
    move_to_pretended_gpu,
    resume,
    tiny_config,
    train_tiny,
)


def optimizer_on_gpu(make, trainer=None, step=False):
    """Return what a task with a learned noise scale makes of an optimizer on a pretended GPU."""
    task = DepthTask(DropoutNet(), GAILoss(noise="learned"), optimizer=make, noise_lr=0.02)
    task._trainer = trainer
    with FakeTensorMode():
        move_to_pretended_gpu(task)
        optimizer = task.configure_optimizers()
        if step:
            for parameter in task.parameters():
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()
    return optimizer


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_is_fused_on_a_gpu_with_all_its_settings(cls):
    optimizer = optimizer_on_gpu(
        lambda groups: cls(groups, lr=3e-4, betas=(0.8, 0.9), weight_decay=0.1, amsgrad=True),
        step=True,
    )
    assert {state["step"].device.type for state in optimizer.state.values()} == {"cuda"}
    weights, noise = optimizer.param_groups
    assert type(optimizer) is cls
    assert (weights["fused"], noise["fused"]) == (True, True)
    assert (weights["lr"], weights["betas"], weights["weight_decay"]) == (3e-4, (0.8, 0.9), 0.1)
    assert (noise["lr"], noise["weight_decay"], noise["name"]) == (0.02, 0.0, "noise")
    assert (weights["amsgrad"], noise["amsgrad"]) == (True, True)
    assert weights["decoupled_weight_decay"] is (cls is torch.optim.AdamW)
    on_cpu = DepthTask(DropoutNet(), GAILoss(noise="learned"), optimizer=cls)
    assert {group["fused"] for group in on_cpu.configure_optimizers().param_groups} == {None}


@pytest.mark.parametrize(
    ("chosen", "precision", "clip", "fused"),
    [
        ({"fused": False}, "32-true", None, False),
        ({"foreach": True}, "32-true", None, None),
        ({"foreach": False}, "32-true", None, None),
        ({"capturable": True}, "32-true", None, None),
        ({}, "16-mixed", 1.0, None),  # fused steps unscale, and what is clipped must be
        ({}, "16-mixed", None, True),
        ({}, "bf16-mixed", 1.0, True),
    ],
)
def test_who_says_how_updates_are_computed_is_obeyed_and_clipped_float16_is_not_fused(
    chosen, precision, clip, fused
):
    trainer = SimpleNamespace(precision=precision, gradient_clip_val=clip)
    optimizer = optimizer_on_gpu(lambda groups: torch.optim.AdamW(groups, **chosen), trainer)
    assert {group["fused"] for group in optimizer.param_groups} == {fused}
    assert all(group.items() >= chosen.items() for group in optimizer.param_groups)


def test_other_optimizers_stay_as_they_are():
    made = []
    optimizer = optimizer_on_gpu(lambda g: made.append(torch.optim.SGD(g, lr=0.1)) or made[0])
    assert optimizer is made[0]


def test_a_fused_cpu_optimizer_is_refused_where_it_would_update_wrongly():
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), fused=True)
    assert suit_device(optimizer) is optimizer
    weight = nn.Parameter(torch.zeros(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    with pytest.raises(ConfigError, match=r"leave out --model\.optimizer\.init_args\.fused"):
        suit_device(torch.optim.Adam([weight], fused=True))


@pytest.mark.parametrize("mps", [True, False])
def test_only_a_mac_trains_on_its_cpu_because_mps_has_no_float64(monkeypatch, mps):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_accelerator("auto") == ("cpu" if mps else "auto")
    assert [usable_accelerator(name) for name in ("cpu", "gpu")] == ["cpu", "gpu"]
    if mps:
        with pytest.raises(ConfigError, match="accelerator cpu"):
            usable_accelerator("mps")


@pytest.mark.parametrize("names", [["cpu"], ["auto", "gpu", "cuda"]], ids=["CPU", "GPU"])
@pytest.mark.parametrize("native", [True, False, None])
def test_bfloat16_only_where_the_device_multiplies_it_natively(monkeypatch, names, native):
    capabilities = {} if native is None else {"avx512_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: names != ["cpu"])
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: bool(native) or including_emulation,
    )
    expected = "bf16-mixed" if native else "32-true"
    assert [default_precision(name) for name in names] == [expected] * len(names)


def test_the_folded_network_trains_channels_last_in_bfloat16():
    torch.manual_seed(0)
    task = DepthTask(ResNetMFF(), MSELoss(), resize="target")
    filters = [p for p in task.model.parameters() if p.ndim == 4]
    batch = {"image": torch.randn(2, 3, 9, 17), "depth": torch.full((2, 1, 6, 10), 3.0)}
    outputs = []
    task.model.register_forward_hook(lambda module, images, preds: outputs.append(preds))
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(task, batch)
    loss.backward()
    assert outputs[0].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)
    # PyTorch's fused optimizers ask for gradients in the parameters' layout
    assert all(p.grad.is_contiguous(memory_format=torch.channels_last) for p in filters)
    assert all(p.grad.dtype == torch.float32 for p in filters)


# ---- the schedule ----


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


def test_sigma_has_a_group_without_decay_or_schedule_and_frozen_parameters_have_none():
    network = DropoutNet()
    network.layers[0].requires_grad_(False)
    task = DepthTask(
        network,
        GAILoss(noise="learned"),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1),
        lr_scheduler=lambda one: torch.optim.lr_scheduler.StepLR(one, step_size=1, gamma=0.5),
        noise_lr=0.02,
    )
    made = task.configure_optimizers()
    weights, noise = made["optimizer"].param_groups
    assert noise["params"] == task.criterion.noise_parameters()
    assert (noise["weight_decay"], weights["weight_decay"]) == (0.0, 0.1)
    assert len(weights["params"]) == len(list(network.parameters())) - 2
    for rate in (1e-3, 1e-3 / 2, 1e-3 / 4):
        assert (noise["lr"], weights["lr"]) == (0.02, rate)
        made["optimizer"].step()
        task.lr_scheduler_step(made["lr_scheduler"]["scheduler"], None)
    fixed = DepthTask(DropoutNet(), GAILoss())
    assert [group["name"] for group in fixed.configure_optimizers().param_groups] == ["weights"]


def test_the_schedule_ends_with_the_training(finished_run):
    (state,) = checkpoint_of(finished_run)["lr_schedulers"]
    assert state["last_epoch"] == 2 * 3  # epochs, and 12 images in batches of 4
    weights, _ = state["_last_lr"]
    assert weights == pytest.approx(0.0, abs=1e-12)


# ---- a noise scale that follows the prediction: in numbers, and guarded while it learns ----


class Proportional(NoiseModule):
    """A noise of the user's own, under which far labels have no location."""

    depends_on_preds = True

    def forward(self, preds):
        return (0.25 * preds).clamp(min=1e-3)


def steep() -> DepthNoise:
    """A noise that starts steeper than every depth can be predicted with."""
    return DepthNoise(0.1, slope=0.5, max_sigma=100.0)


def test_the_values_are_the_formulas():
    values = noise_values(DepthNoise(0.5, slope=0.2, max_sigma=1.5), RANGE)
    a = math.log(math.expm1(0.5))
    near, middle = (math.log1p(math.exp(a + 0.2 * p)) for p in (0.7, 5.35))
    expected = {"sigma_near": near, "sigma_middle": middle, "sigma_far": 1.5, "a": a, "b": 0.2}
    assert values == pytest.approx(expected)


def test_training_projects_logs_saves_and_resumes_the_noise(tmp_path, caplog):
    arguments = {"noise_sigma": 0.1, "slope": 0.5, "max_sigma": 100.0}
    noise = {"class_path": "depthbal.losses.noise.DepthNoise", "init_args": arguments}
    options = {"init_noise_sigma": 0.1, "label_range": list(RANGE), "noise": noise}
    criterion = {"class_path": "depthbal.losses.BMCLoss", "init_args": options}
    config = tiny_config(tmp_path / "tiny.yaml", model={"criterion": criterion})
    run = train_tiny(config, tmp_path / "run", "--trainer.max_epochs=1")
    assert "b = 0.5 was reduced" in caplog.text
    noise, state = steep(), checkpoint_of(run)["state_dict"]
    for name in ("intercept", "slope"):
        getattr(noise, name).data.copy_(state[f"criterion.noise.{name}"])
    assert check_noise(noise, open_run(run).histogram(), RANGE) is None
    (last,) = [row for row in logged(run) if row["train/noise_b"]]
    expected = noise_values(noise, RANGE)
    assert set(expected) == {"sigma_near", "sigma_middle", "sigma_far", "a", "b"}
    for name, value in expected.items():
        assert float(last[f"train/noise_{name}"]) == pytest.approx(value, rel=1e-5)
    # a resumed training guards with the run's histogram
    change_checkpoint(run, criterion__noise__slope=0.5)
    resume(run, "--trainer.max_epochs=2")
    assert checkpoint_of(run)["state_dict"]["criterion.noise.slope"] < 0.45


def test_a_noise_that_fails_the_same_way_is_reported_once(caplog):
    task = DepthTask(DropoutNet(), BNILoss(noise=Proportional()))
    fit_prior(task, LONG_TAIL)
    for _ in range(3):
        task.guard_noise()
    assert caplog.text.count("Proportional") == 1


def test_the_loss_without_label_range_is_guarded_over_the_tasks_depths():
    task = DepthTask(DropoutNet(), BMCLoss(noise=steep()))
    task.label = DEPTH._replace(range=RANGE)
    fit_prior(task, LONG_TAIL)
    assert task.label_range() == RANGE
    task.guard_noise()
    assert task.criterion.noise.slope.item() < 0.45
