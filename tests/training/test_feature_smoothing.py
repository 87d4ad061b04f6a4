"""FDS inside a training: when it calibrates, what it collects, and that nothing else changes."""

import copy
import functools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from torch import nn
from torch.utils.data import DataLoader

from depthbal.data import NYUD2DataModule
from depthbal.errors import ConfigError
from depthbal.evaluation import DepthBins
from depthbal.losses import MSELoss
from depthbal.losses.label_weights import smoothing_kernel
from depthbal.training import DepthTask, FeatureSmoothing, Task
from tests import reference
from tests.data.make_files import SMALL, write_nyud2
from tests.training.helpers import (
    QUIET,
    STEP_LR,
    checkpoint_of,
    resume,
    same_weights,
    tiny_config,
    train_tiny,
)

EDGES = [0.7, 2.0, 3.0, 5.0, 10.0]
KERNEL = smoothing_kernel("gaussian", 5, 2.0).tolist()
IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DEPTH = (3 + 3 * IMAGES.mean(1, keepdim=True)[..., ::2, ::2]).clamp(0, 10)  # of the brightness
SAMPLES = [{"image": i, "depth": d, "index": 0} for i, d in zip(IMAGES, DEPTH, strict=True)]
FDS = {"class_path": "depthbal.training.FeatureSmoothing"}


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def plain_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 1, 3, padding=1),
    )


def fit(task, *callbacks, loader=None, val_loader=None, epochs=2, **options) -> pl.Trainer:
    options |= {"callbacks": list(callbacks), "enable_progress_bar": False, "logger": False}
    trainer = pl.Trainer(max_epochs=epochs, **QUIET, **options)
    trainer.fit(task, loader or DataLoader(SAMPLES, batch_size=3), val_loader)
    return trainer


def depth_task(net=None, **options) -> DepthTask:
    return DepthTask(net or plain_net(), MSELoss(), optimizer=sgd, **options)


def rows_of(features):
    return features.movedim(1, -1).reshape(-1, features.shape[1]).double()


def bins_of(depth):
    depth = torch.where(depth >= 0.7, depth, float("nan"))
    return reference.fds_bins(depth.flatten(), EDGES)


def assert_moments(fds, features, depth):
    """Compare the statistics of one pass with the reference's."""
    moments = reference.fds_moments(features, bins_of(depth), 4)
    for bin_, (_, mean, variance) in enumerate(moments):
        torch.testing.assert_close(fds.smoothing.mean[bin_], mean)
        torch.testing.assert_close(fds.smoothing.variance[bin_], variance)


class Watch(pl.Callback):
    """Keep the last layer's input before and after calibration, and the network after epoch 1."""

    def __init__(self) -> None:
        self.seen, self.after_first = [], None

    def on_train_start(self, trainer, task) -> None:
        relu, layer = task.model[2], task.model[3]
        relu.register_forward_hook(lambda m, i, out: self.seen.append([out.detach().clone()]))
        layer.register_forward_hook(lambda m, i, out: self.seen[-1].append(i[0].detach().clone()))

    def on_train_epoch_end(self, trainer, task) -> None:
        if trainer.current_epoch == 0:
            self.after_first = copy.deepcopy(task.model.state_dict())


def test_the_pass_after_an_epoch_collects_the_features_that_training_would_see():
    fds, watch = FeatureSmoothing(edges=EDGES), Watch()
    task = depth_task()
    fit(task, fds, watch, epochs=1)
    raw = [rows_of(before) for before, _ in watch.seen[-2:]]  # the pass: two batches
    assert_moments(fds, torch.cat(raw), DEPTH)
    # the network as it is now, in training mode, gives these features again
    network = copy.deepcopy(task.model).train()
    with torch.no_grad():
        again = rows_of(network[:3](IMAGES[:3]))
    torch.testing.assert_close(again, raw[0])


def test_calibration_starts_with_the_second_epoch_and_is_that_of_the_loop():
    fds, watch = FeatureSmoothing(edges=EDGES), Watch()
    fit(depth_task(), fds, watch, epochs=2)
    steps = [watch.seen[i] for i in range(4)]  # two steps of training, two of the pass
    assert all(torch.equal(before, after) for before, after in steps)
    raw = torch.cat([rows_of(before) for before, _ in watch.seen[2:4]])
    running = reference.fds_running([reference.fds_moments(raw, bins_of(DEPTH), 4)], 0.9)
    for number, part in ((4, DEPTH[:3]), (5, DEPTH[3:])):
        before, after = watch.seen[number]
        arguments = rows_of(before), bins_of(part), running, KERNEL, (0.2, 5.0)
        expected = reference.fds_calibrate(*arguments)
        torch.testing.assert_close(rows_of(after), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(before, after, atol=1e-3)


def test_the_first_epoch_and_the_batch_statistics_are_those_without_smoothing():
    plain, smoothed = Watch(), Watch()
    first, second = depth_task(), depth_task()
    fit(first, plain, epochs=2)
    fit(second, smoothed, FeatureSmoothing(edges=EDGES), epochs=2)
    for name, value in plain.after_first.items():
        assert torch.equal(smoothed.after_first[name], value), name
    weights = [task.model.state_dict()["3.weight"] for task in (first, second)]
    assert not torch.allclose(*weights)
    # the pass left no trace in the counters of batch normalisation
    assert second.model.state_dict()["1.num_batches_tracked"] == 4


def test_validation_and_the_finished_network_are_not_calibrated():
    fds, task = FeatureSmoothing(edges=EDGES), depth_task()
    inputs = []

    class Validate(pl.Callback):
        def on_validation_batch_end(self, trainer, task, *_) -> None:
            if trainer.current_epoch == 1 and not trainer.sanity_checking:
                twin = nn.Sequential(*task.model)
                fresh = copy.deepcopy(task.model)
                fresh[3]._forward_pre_hooks.clear()
                image = IMAGES[:2]
                inputs.append(torch.equal(twin(image), fresh(image)))

    loader = DataLoader(SAMPLES, batch_size=3)
    fit(task, fds, Validate(), loader=loader, val_loader=loader)
    assert inputs == [True, True]
    assert not task.model[3]._forward_pre_hooks


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16-mixed"}, {"precision": "64-true"}, {"accumulate_grad_batches": 2}],
)
def test_other_precisions_and_accumulated_gradients_train(options):
    fds = FeatureSmoothing(edges=EDGES)
    fit(depth_task(), fds, epochs=2, **options)
    assert fds.smoothing.passes.tolist() == [2] * 4


def test_a_compiled_network_is_calibrated_as_the_plain_one(monkeypatch):
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)
    results = []
    for compile_ in (False, True):
        task = depth_task(compile=compile_)
        fit(task, FeatureSmoothing(edges=EDGES), epochs=3)
        assert task.compile_network is compile_  # it did not fail
        results.append(task.model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


def test_features_of_images_are_smoothed_over_ages():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 8, 8, generator=generator) + i % 3 for i in range(12)]
    ages = [torch.tensor([10.0 * (i % 3) + 5.0]) for i in range(12)]
    samples = [{"image": i, "label": a} for i, a in zip(images, ages, strict=True)]
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 1)
    )
    fds = FeatureSmoothing(edges=[0.0, 10.0, 20.0, 30.0, 40.0], clip=(0.1, 10.0))
    fit(Task(net, MSELoss(), optimizer=sgd), fds, loader=DataLoader(samples, batch_size=4))
    assert fds.smoothing.passes.tolist() == [2, 2, 2, 0]
    assert fds.smoothing.mean.shape == (4, 5)
    with torch.no_grad():
        latest = net[:-1](torch.stack(images[1::3])).double().mean(0)
    assert not torch.allclose(fds.smoothing.mean[1], latest)  # nine tenths are the first epoch's


def test_a_resumed_training_continues_exactly(tmp_path):
    model = {"lr_scheduler": STEP_LR}
    trainer = {"max_epochs": 2, "accelerator": "cpu", "callbacks": [FDS]}
    config = tiny_config(tmp_path / "tiny.yaml", trainer=trainer, model=model)
    workers = "--data.num_workers=2"
    resumed = train_tiny(config, tmp_path / "resumed", workers)
    assert checkpoint_of(resumed)["callbacks"]["FeatureSmoothing"]["passes"].max() == 2
    torch.rand(3)  # another process would have drawn other random numbers
    resume(resumed, "--trainer.max_epochs", "4")
    whole = train_tiny(config, tmp_path / "whole", workers, "--trainer.max_epochs=4")
    assert same_weights(resumed, whole)
    states = [checkpoint_of(run)["callbacks"]["FeatureSmoothing"] for run in (resumed, whole)]
    assert states[0]["passes"].max() == 4
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_smoothing_changes_the_run_and_can_be_asked_for_on_the_command_line(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml")
    plain = train_tiny(config, tmp_path / "plain")
    adding = f"--trainer.callbacks+={FDS['class_path']}"
    run = train_tiny(config, tmp_path / "fds", adding, "--trainer.callbacks.kernel=laplace")
    assert "kernel: laplace" in (run / "config.yaml").read_text()
    assert not same_weights(plain, run)
    edges = checkpoint_of(run)["callbacks"]["FeatureSmoothing"]["edges"]
    assert len(edges) == len(DepthBins.uniform(0.1, 10.0).edges) - 7  # those of the histogram


def test_a_later_start_is_kept_and_a_subset_alone_is_gone_over(tmp_path):
    watch = Watch()
    fit(depth_task(), FeatureSmoothing(edges=EDGES, start_epoch=2), watch, epochs=3)
    changed = [not torch.equal(before, after) for before, after in watch.seen]
    assert changed == [False] * 8 + [True] * 2 + [False] * 2
    data = write_nyud2(tmp_path / "root", scenes=6)
    rows = (data / "nyu2_train.csv").read_text().splitlines()
    (data / "subset.csv").write_text("\n".join(rows[1::4]) + "\n")
    module = NYUD2DataModule(tmp_path / "root", val_fraction=0.0, **SMALL)
    fds, watch = FeatureSmoothing(subset="subset.csv"), Watch()
    fit(depth_task(), fds, watch, loader=module, epochs=1)
    assert len(watch.seen[-1][0]) == 3
    assert fds.smoothing.edges.tolist() == module.train_histogram().edges.tolist()


@pytest.mark.parametrize(
    ("options", "module", "message"),
    [
        ({"start_epoch": 0}, None, "start_epoch"),
        ({"momentum": 1.5}, None, "momentum"),
        ({"kernel_size": 2}, None, "kernel_size"),
        ({"clip": (0.0, 1.0)}, None, "clip"),
        ({}, depth_task, "give edges"),
        ({"edges": EDGES, "subset": "some.csv"}, depth_task, "subset.*NoneType"),
        ({"edges": EDGES}, BoringModel, "BoringModel"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(options, module, message):
    with pytest.raises(ConfigError, match=message):
        fit(module and module(), FeatureSmoothing(**options))


def test_a_layer_given_by_name_is_the_one_whose_input_is_smoothed():
    fds = FeatureSmoothing(layer="0", edges=EDGES)
    fit(depth_task(), fds, epochs=1)
    # four pixels of the image to one of the depth
    counted = DEPTH.repeat_interleave(2, 2).repeat_interleave(2, 3)
    rows = rows_of(IMAGES)
    assert_moments(fds, rows, counted)
