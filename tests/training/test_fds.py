"""FDS against loops over bins and features, and inside a training, where nothing else changes."""

import copy
import functools
import shutil

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from depthbal.data import NYUD2DataModule
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import DepthBins
from depthbal.losses import MSELoss
from depthbal.losses.label_weights import smoothing_kernel
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.training import DepthTask, FeatureSmoothing, Task, fds
from depthbal.training.fds import (
    Calibration,
    add_features,
    calibration_tables,
    feature_bins,
    find_layer,
    subset_loader,
    update_running,
)
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

EDGES = [0.7, 1.0, 1.6, 2.0, 3.5, 4.0, 10.0]
CLIP = (0.2, 5.0)
GAUSSIAN = smoothing_kernel("gaussian", 5, 2.0)
HUNDRED = torch.arange(0.0, 101.0, dtype=torch.float64)


def rows_of(features):
    return features.movedim(1, -1).reshape(-1, features.shape[1]).double()


# ---- bins: the label of every feature ----


def ramp(height, width):
    """Labels that say where they are: ten times the row and the column."""
    rows, columns = torch.arange(height), torch.arange(width)
    return (10.0 * rows[:, None] + columns)[None, None] + 0.5


def test_every_feature_gets_the_label_in_its_middle():
    target = ramp(4, 6)
    same = feature_bins(target, target < 30, HUNDRED, (4, 6))
    assert same[0, 2:].tolist() == [[20, 21, 22, 23, 24, 25], [100] * 6]
    assert feature_bins(ramp(8, 8), None, HUNDRED, (2, 2)).tolist() == [[[22, 26], [62, 66]]]
    finer = feature_bins(ramp(2, 3), None, HUNDRED, (4, 6))
    assert finer[0, 1:3].tolist() == [[0, 0, 1, 1, 2, 2], [10, 10, 11, 11, 12, 12]]
    # features beyond the labels have none; the middle of a third row of 2 x 2 is row 5
    for size, with_label in (((8, 8), 5), ((4, 4), 2), ((16, 16), 10)):
        found = feature_bins(ramp(5, 8), None, HUNDRED, size)[0]
        assert (found[with_label:] == 100).all()
        assert (found[:with_label] < 100).all()


def test_the_features_of_a_padded_smp_network_meet_the_labels_of_their_own_pixels():
    """The output at a pixel depends on the head's input around the same pixel."""
    torch.manual_seed(0)
    args = {"decoder_channels": [16, 8, 8, 4, 4]}
    network = SmpDepth("unet", "mobilenet_v2", arch_args=args).eval()
    seen = []
    find_layer(network).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output = network(torch.randn(1, 3, 36, 48))  # extended to 64 x 64
    seen[0].retain_grad()
    output[0, 0, 10, 20].backward()
    rows, columns = (seen[0].grad.abs().sum(1)[0] > 0).nonzero(as_tuple=True)
    assert (rows.float().mean().item(), columns.float().mean().item()) == (10, 20)
    target = torch.full((1, 1, *output.shape[-2:]), 3.5)
    target[0, 0, 10, 20] = 7.5
    found = feature_bins(target, None, HUNDRED, tuple(seen[0].shape[-2:]))
    assert (found == 7).nonzero().tolist() == [[0, 10, 20]]
    assert (found[:, output.shape[-2] :] == 100).all()


def test_labels_of_images_are_one_per_feature_vector_and_none_where_nan():
    target = torch.tensor([[3.0], [float("nan")], [5.9]])
    assert feature_bins(target, None, HUNDRED, ()).tolist() == [3, 100, 5]
    assert feature_bins(target, target > 4, HUNDRED, ()).tolist() == [100, 100, 5]
    for wrong, size in ((target[:, 0], (4, 4)), (target[..., None], ()), (target.T, ())):
        with pytest.raises(ConfigError, match=r"one label per feature.*layer"):
            feature_bins(wrong, None, HUNDRED, size)


# ---- statistics and calibration, against the loops ----


def batch(seed, dtype=torch.float32, size=(5, 7)):
    """Features whose mean and spread depend on the label; some labels are missing (NaN)."""
    generator = torch.Generator().manual_seed(seed)
    number = 3 if size else 60
    labels = 0.5 + 4 * torch.rand(number, 1, *size, generator=generator)
    labels[(labels > 1.6) & (labels < 2.0)] = 3.0  # the third bin is empty
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = float("nan")
    labels[0].flatten()[0] = 1.7  # but for a single feature
    noise = torch.randn(number, 4, *size, generator=generator)
    features = labels.nan_to_num(7.0) * 2 + noise * labels.nan_to_num(1.0).sqrt()
    features[:, 3] = torch.where(labels[:, 0] < 1.0, 0.0, features[:, 3])  # a dead channel
    return features.to(dtype), labels


def running_of(*epochs, edges=EDGES, momentum=0.9):
    """Running statistics after epochs of (features, bins)."""
    size = len(edges) - 1, epochs[0][0].shape[1]
    edges = torch.tensor(edges, dtype=torch.float64)
    running = {"edges": edges, "passes": torch.zeros(size[0], dtype=torch.int64)}
    running |= dict.fromkeys(("mean", "variance"), torch.zeros(size, dtype=torch.float64))
    for features, bins in epochs:
        sums = torch.zeros(3, len(edges), size[1], dtype=torch.float64)
        for part, index in zip(features.split(1), bins.split(1), strict=True):  # several batches
            add_features(sums, part, index)
        update_running(running, sums, momentum)
    return running


def both_after(epochs, size, momentum=0.9):
    """The running statistics after some epochs, ours and the reference's."""
    edges = torch.tensor(EDGES, dtype=torch.float64)
    ours, moments = [], []
    for seed in range(epochs):
        features, labels = batch(seed, size=size)
        ours.append((features, feature_bins(labels, ~labels.isnan(), edges, size)))
        bins = reference.fds_bins(labels[:, 0], EDGES).flatten()
        moments.append(reference.fds_moments(rows_of(features), bins, 6))
    return running_of(*ours, momentum=momentum), reference.fds_running(moments, momentum)


@pytest.mark.parametrize("size", [(5, 7), ()], ids=["dense", "vectors"])
@pytest.mark.parametrize(
    ("dtype", "epochs", "kernel", "momentum", "clip", "chunk"),
    [
        (torch.bfloat16, 1, GAUSSIAN, 0.9, CLIP, 2**22),
        (torch.float32, 3, GAUSSIAN, 0.9, CLIP, 1),
        (torch.float64, 2, smoothing_kernel("triangular", 3, 1.0), 0.5, (0.9, 1.1), 2**22),
        (torch.float32, 2, smoothing_kernel("laplace", 3, 1.0), 0.5, (0.9, 1.1), 2**22),
    ],
)
def test_values_and_gradients_are_those_of_the_loop(
    size, dtype, epochs, kernel, momentum, clip, chunk, monkeypatch
):
    monkeypatch.setattr(fds, "CHUNK", chunk)
    running, expected_running = both_after(epochs, size, momentum)
    assert expected_running[2] is None
    running["mean"][2] = 1e6  # whatever is there plays no part
    for bin_, moments in enumerate(expected_running):
        for name, value in zip(("mean", "variance"), moments or (), strict=False):
            torch.testing.assert_close(running[name][bin_], value, rtol=1e-9, atol=1e-12)
    features, labels = batch(9, dtype, size)
    leaf = features.contiguous(memory_format=torch.channels_last) if size else features.clone()
    leaf.requires_grad_()
    index = feature_bins(labels, ~labels.isnan(), running["edges"], size)
    out = Calibration.apply(leaf, index, *calibration_tables(running, kernel, clip))
    rows, bins = rows_of(features), reference.fds_bins(labels[:, 0], EDGES).flatten()
    rows.requires_grad_()
    expected = reference.fds_calibrate(rows, bins, expected_running, kernel.tolist(), clip)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weights).sum().backward()
    (out.movedim(1, -1).reshape(-1, 4) * weights).sum().backward()
    assert out.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    for found, true in ((rows_of(out), expected.detach()), (rows_of(leaf.grad), rows.grad)):
        torch.testing.assert_close(found, true, rtol=tolerance, atol=tolerance)
    assert (rows_of(out) - rows).abs().max() > 0.01  # something was calibrated


def test_a_mean_far_from_zero_leaves_the_variance_its_digits_and_a_constant_has_none():
    generator = torch.Generator().manual_seed(1)
    features = 1e4 + torch.randn(5000, 2, generator=generator, dtype=torch.float64)
    features[:, 1] = 0.1
    running = running_of((features, torch.zeros(5000, dtype=torch.int64)), edges=[0.0, 1.0])
    torch.testing.assert_close(running["variance"][0, 0], features[:, 0].var(), rtol=1e-6, atol=0)
    assert running["variance"][0, 1] == 0


def test_the_backward_pass_keeps_no_number_per_feature():
    features, labels = batch(1)
    running, _ = both_after(1, (5, 7))
    index = feature_bins(labels, None, running["edges"], (5, 7))
    tables, saved = calibration_tables(running, GAUSSIAN, CLIP), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        Calibration.apply(features.requires_grad_(), index, *tables)
    kept = sum(tensor.numel() for tensor in saved if tensor.is_floating_point())
    assert kept == tables[0].numel() < features.numel()


# ---- which layer, which images ----


def test_the_layer_is_the_published_one_smps_head_or_the_one_that_is_named():
    with torch.device("meta"):
        network = ResNetMFF()
    assert find_layer(network) is network.R.conv2
    for arch in ("unet", "fpn"):
        network = SmpDepth(arch, "mobilenet_v2")
        assert find_layer(network) in list(network.network.segmentation_head.modules())
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    assert find_layer(network, "0") is network[0]
    for name, message in (("head", "'head'.*0, 1"), (None, "one output.*layer.*: 0")):
        with pytest.raises(ConfigError, match=message):
            find_layer(network if name else network[:1], name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("nyud2")
    data = write_nyud2(root, scenes=11)
    rows = (data / "nyu2_train.csv").read_text().splitlines()
    (data / "subset.csv").write_text("\n".join(rows[::3]) + "\n")
    return root


def module_of(root, **kwargs):
    module = NYUD2DataModule(root, **{**SMALL, "val_fraction": 0.0, **kwargs})
    module.setup("fit")
    return module


def samples(loader):
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in ("image", "depth")}


def test_the_listed_images_come_without_augmentation_from_folders_and_packed_data(folder, tmp_path):
    module = module_of(folder)
    found = samples(subset_loader(module, "subset.csv"))
    source, transform = module.train_set.source, module.count_transform
    expected = [transform(*source.load(index)) for index in range(0, 22, 3)]
    assert len(found["image"]) == 8
    for number, (image, depth) in enumerate(expected):
        assert torch.equal(found["image"][number], image)
        assert torch.equal(found["depth"][number], depth)
    file = tmp_path / "packed.h5"
    pack(folder, file, 24)
    shutil.copy(folder / "data" / "subset.csv", tmp_path / "beside.csv")
    packed = samples(subset_loader(module_of(file), "beside.csv"))
    assert all(torch.equal(found[key], packed[key]) for key in found)


def test_the_pass_knows_what_was_measured_beyond_the_range(folder):
    module = module_of(folder, measured_beyond=True, depth_range=(0.7, 7.0))
    batch = next(iter(subset_loader(module, "subset.csv")))
    assert batch["beyond"].any()
    assert not batch["depth"][batch["beyond"]].any()


def test_images_held_out_for_validation_stay_out(folder, caplog):
    module = module_of(folder, val_fraction=0.3)
    with caplog.at_level("INFO", logger="depthbal"):
        found = samples(subset_loader(module, "subset.csv"))
    assert len(found["image"]) < 8
    assert f"{len(found['image'])} of the 8 images" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no list mine\.csv.*null"),
        (b"data/a.jpg,data/a.png\n", r"0 of the 1 images.*nyu2_train/scene00_out/1\.jpg"),
        (b"\xff\xfe\x00", "0 of the 1 images"),
    ],
)
def test_a_list_that_does_not_serve_is_named(folder, tmp_path, content, message):
    path = tmp_path / "mine.csv"
    if content:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        subset_loader(module_of(folder), str(path) if content else "mine.csv")


# ---- inside a training ----

METRES = [0.7, 2.0, 3.0, 5.0, 10.0]
IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DEPTH = (3 + 3 * IMAGES.mean(1, keepdim=True)[..., ::2, ::2]).clamp(0, 10)  # of the brightness
SAMPLES = [{"image": i, "depth": d, "index": 0} for i, d in zip(IMAGES, DEPTH, strict=True)]


def sgd(parameters, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr)


def fit(task, *callbacks, loader=None, val_loader=None, epochs=2, **options) -> None:
    options |= {"callbacks": list(callbacks), "enable_progress_bar": False, "logger": False}
    trainer = pl.Trainer(max_epochs=epochs, **QUIET, **options)
    trainer.fit(task, loader or DataLoader(SAMPLES, batch_size=3), val_loader)


def depth_task(**options) -> DepthTask:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 1, 3, padding=1)
    network = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), last)
    task = DepthTask(network, MSELoss(), optimizer=sgd, **options)
    task.take_range((0.7, 10.0))
    return task


def metre_bins(depth):
    return reference.fds_bins(depth.where(depth >= 0.7, float("nan")).flatten(), METRES)


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


def test_calibration_starts_with_the_second_epoch_and_is_that_of_the_loop():
    watch = Watch()
    fit(depth_task(), FeatureSmoothing(edges=METRES), watch, epochs=2)
    # two steps of training, two of the pass
    assert all(torch.equal(before, after) for before, after in watch.seen[:4])
    raw = torch.cat([rows_of(before) for before, _ in watch.seen[2:4]])
    network = depth_task().model.train()  # the pass sees the features as training would
    network.load_state_dict(watch.after_first)
    torch.testing.assert_close(rows_of(network[:3](IMAGES[:3])), raw[: len(raw) // 2])
    running = reference.fds_running([reference.fds_moments(raw, metre_bins(DEPTH), 4)], 0.9)
    for number, part in ((4, DEPTH[:3]), (5, DEPTH[3:])):
        before, after = watch.seen[number]
        given = metre_bins(part), running, GAUSSIAN.tolist(), CLIP
        expected = reference.fds_calibrate(rows_of(before), *given)
        torch.testing.assert_close(rows_of(after), expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(before, after, atol=1e-3)


def test_the_first_epoch_and_the_batch_statistics_are_those_without_smoothing():
    plain, smoothed = Watch(), Watch()
    first, second = depth_task(), depth_task()
    fit(first, plain)
    fit(second, smoothed, FeatureSmoothing(edges=METRES))
    for name, value in plain.after_first.items():
        assert torch.equal(smoothed.after_first[name], value), name
    weights = [task.model.state_dict()["3.weight"] for task in (first, second)]
    assert not torch.allclose(*weights)
    # the pass left no trace in the counters of batch normalisation
    assert second.model.state_dict()["1.num_batches_tracked"] == 4


def test_validation_and_the_finished_network_are_not_calibrated():
    task, same = depth_task(), []

    class Validate(pl.Callback):
        def on_validation_batch_end(self, trainer, task, *_) -> None:
            if trainer.current_epoch == 1:
                fresh = copy.deepcopy(task.model)
                fresh[3]._forward_pre_hooks.clear()
                same.append(torch.equal(task.model(IMAGES[:2]), fresh(IMAGES[:2])))

    loader = DataLoader(SAMPLES, batch_size=3)
    fit(task, FeatureSmoothing(edges=METRES), Validate(), loader=loader, val_loader=loader)
    assert same == [True, True]
    assert not task.model[3]._forward_pre_hooks


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"accumulate_grad_batches": 2}])
def test_other_precisions_and_accumulated_gradients_train(options):
    smoothing = FeatureSmoothing(edges=METRES)
    fit(depth_task(), smoothing, **options)
    assert smoothing.running["passes"].tolist() == [2] * 4


def test_a_compiled_network_is_calibrated_as_the_plain_one(monkeypatch):
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)
    results = []
    for compile_ in (False, True):
        task = depth_task(compile=compile_)
        fit(task, FeatureSmoothing(edges=METRES), epochs=3)
        assert task.compile_network is compile_  # it did not fail
        results.append(task.model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


def test_features_of_images_are_smoothed_over_ages():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 8, 8, generator=generator) + i % 3 for i in range(12)]
    ages = [torch.tensor([10.0 * (i % 3) + 5.0]) for i in range(12)]
    samples = [{"image": i, "label": a} for i, a in zip(images, ages, strict=True)]
    body = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(*body, nn.Linear(5, 1))
    smoothing = FeatureSmoothing(edges=[0.0, 10.0, 20.0, 30.0, 40.0], clip=(0.1, 10.0))
    task = Task(net, MSELoss(), optimizer=functools.partial(sgd, lr=1e-3))
    fit(task, smoothing, loader=DataLoader(samples, batch_size=4))
    assert smoothing.running["passes"].tolist() == [2, 2, 2, 0]
    assert smoothing.running["mean"].shape == (4, 5)


def test_a_resumed_training_continues_exactly(tmp_path):
    config = tiny_config(tmp_path / "tiny.yaml", model={"lr_scheduler": STEP_LR})
    fds = "--trainer.callbacks+=depthbal.training.FeatureSmoothing"
    options = ["--data.num_workers=2", fds, "--trainer.callbacks.kernel=laplace"]
    resumed = train_tiny(config, tmp_path / "resumed", *options)
    assert "kernel: laplace" in (resumed / "config.yaml").read_text()
    torch.rand(3)  # another process would have drawn other random numbers
    resume(resumed, "--trainer.max_epochs", "4")
    whole = train_tiny(config, tmp_path / "whole", *options, "--trainer.max_epochs=4")
    assert same_weights(resumed, whole)
    states = [checkpoint_of(run)["callbacks"]["FeatureSmoothing"] for run in (resumed, whole)]
    assert states[0]["passes"].max() == 4
    assert set(states[0]) == {"edges", "passes", "mean", "variance"}
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    edges = DepthBins.uniform(0.1, 10.0).edges[7:]
    assert states[0]["edges"].tolist() == pytest.approx(list(edges))  # those of the histogram


def test_a_later_start_is_kept_and_a_subset_alone_is_gone_over(folder):
    watch = Watch()
    fit(depth_task(), FeatureSmoothing(edges=METRES, start_epoch=2), watch, epochs=3)
    changed = [not torch.equal(before, after) for before, after in watch.seen]
    assert changed == [False] * 8 + [True] * 2 + [False] * 2
    module = NYUD2DataModule(folder, val_fraction=0.0, **SMALL)
    smoothing, watch = FeatureSmoothing(subset="subset.csv"), Watch()
    fit(depth_task(), smoothing, watch, loader=module, epochs=1)
    assert sum(len(seen[0]) for seen in watch.seen) == 22 + 8
    assert smoothing.running["edges"].tolist() == module.train_histogram().edges.tolist()


def test_a_layer_given_by_name_is_the_one_whose_input_is_smoothed():
    smoothing = FeatureSmoothing(layer="0", edges=METRES)
    fit(depth_task(), smoothing, epochs=1)
    # four pixels of the image to one of the depth
    bins = metre_bins(DEPTH.repeat_interleave(2, 2).repeat_interleave(2, 3))
    for bin_, (_, mean, variance) in enumerate(reference.fds_moments(rows_of(IMAGES), bins, 4)):
        torch.testing.assert_close(smoothing.running["mean"][bin_], mean)
        torch.testing.assert_close(smoothing.running["variance"][bin_], variance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_epoch": 0}, "start_epoch"),
        ({"momentum": 1.5}, "momentum"),
        ({"kernel_size": 2}, "kernel_size"),
        ({"clip": (2.0, 1.0)}, "clip"),
        ({}, "give edges"),
        ({"edges": [1.0, 1.0]}, "increasing edges"),
        ({"edges": METRES, "subset": "some.csv"}, "subset.*NoneType"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(depth_task(), FeatureSmoothing(**options))
