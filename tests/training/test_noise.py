"""A noise scale that follows the prediction: in numbers, and guarded while it learns."""

import math

import pytest

from depthbal.evaluation import DEPTH
from depthbal.losses import BMCLoss, BNILoss
from depthbal.losses.noise import DepthNoise, NoiseModule, check_noise
from depthbal.training import DepthTask, open_run
from depthbal.training.optimisation import noise_values
from tests.losses.checks import LONG_TAIL, RANGE
from tests.training.helpers import (
    DropoutNet,
    change_checkpoint,
    checkpoint_of,
    fit_prior,
    logged,
    resume,
    tiny_config,
    train_tiny,
)


class Proportional(NoiseModule):
    """A noise of the user's own, under which far labels have no location."""

    depends_on_preds = True

    def forward(self, preds):
        return (0.25 * preds).clamp(min=1e-3)


def steep() -> DepthNoise:
    """A noise that starts steeper than every depth can be predicted with."""
    return DepthNoise(0.1, slope=0.5, max_sigma=100.0)


@pytest.fixture
def config(tmp_path):
    arguments = {"noise_sigma": 0.1, "slope": 0.5, "max_sigma": 100.0}
    noise = {"class_path": "depthbal.losses.noise.DepthNoise", "init_args": arguments}
    options = {"init_noise_sigma": 0.1, "label_range": list(RANGE), "noise": noise}
    criterion = {"class_path": "depthbal.losses.BMCLoss", "init_args": options}
    return tiny_config(tmp_path / "tiny.yaml", model={"criterion": criterion})


def test_the_values_are_the_formulas():
    values = noise_values(DepthNoise(0.5, slope=0.2, max_sigma=1.5), RANGE)
    a = math.log(math.expm1(0.5))
    near, middle = (math.log1p(math.exp(a + 0.2 * p)) for p in (0.7, 5.35))
    expected = {"sigma_near": near, "sigma_middle": middle, "sigma_far": 1.5, "a": a, "b": 0.2}
    assert values == pytest.approx(expected)


def test_training_projects_logs_saves_and_resumes_the_noise(config, tmp_path, caplog):
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
