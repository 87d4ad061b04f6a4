import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import depthbal
from depthbal import Predictor, load_predictor
from depthbal.checkpoint import FORMAT, describe_module
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD
from depthbal.errors import CheckpointError, ConfigError, DataError
from depthbal.losses import (
    BMCLoss,
    BNILoss,
    GAILoss,
    MSELoss,
    balance_predictions,
    truncated_normal_mean,
)
from depthbal.losses.posthoc import BalanceMap
from depthbal.models import SmpDepth
from depthbal.priors import GaussianMixture, Histogram
from tests.training.helpers import unet

RANGE = (0.7, 10.0)
SPEC = {"short_side": 48, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
UNCHANGED = {"short_side": None, "mean": [0.0] * 3, "std": [1.0] * 3}
MIXTURE = GaussianMixture([0.75, 0.25], [2.0, 6.0], [1.0, 4.0])
NO_MAPS = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
HISTOGRAM = Histogram([0.7, 2.0, 5.0, 10.0], [8, 1, 1])
WHITE = np.full((3, 5, 3), 255, dtype=np.uint8)


class Shrinking(nn.Module):
    """Every second pixel of the red channel, times ten: a network one can calculate by hand."""

    dtype = torch.float32

    def forward(self, images):
        return 10 * images[:, :1, ::2, ::2].to(self.dtype)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = SmpDepth(**unet()["init_args"])
    model.initialise_bias(3.0)
    return model


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def checkpoint_of(network, loss, readout="mean", **changes):
    """What the training writes, put together here by hand."""
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    state |= {f"criterion.{name}": value for name, value in loss.state_dict().items()}
    entry = {
        "format": FORMAT,
        "version": depthbal.__version__,
        "model": describe_module(network),
        "criterion": describe_module(loss),
        "input": SPEC,
        "readout": readout,
        "label": ["depth", "m"],
        "label_range": list(RANGE),
        "histogram": HISTOGRAM.to_dict(),
    }
    return {"depthbal": {**entry, **changes}, "state_dict": state, "epoch": 3}


def save_run(folder, content, name="last"):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "checkpoints" / f"{name}.ckpt")
    return folder


@pytest.mark.parametrize("afterwards", [False, True])
def test_the_raw_map_is_enlarged_before_it_is_balanced_and_read_out(afterwards):
    criterion, posthoc, sigma = GAILoss(MIXTURE, label_range=RANGE), None, 1.0
    located = torch.tensor([0.0, 5.0, 10.0])  # corners stay, the middle is half-way
    if afterwards:  # a normal prior N(3, 2) at sigma 1 pushes away from 3 by the factor 3 / 2
        criterion = MSELoss(label_range=RANGE)
        posthoc = BalanceMap(GaussianMixture([1.0], [3.0], [2.0]), sigma, RANGE)
        located = torch.tensor([-1.5, 6.0, 13.5])
    predictor = Predictor(Shrinking(), criterion, UNCHANGED, posthoc=posthoc).eval()
    images = torch.zeros(1, 3, 4, 4)
    images[..., 2] = 1.0  # raw: 0 and 10 metres in two columns
    maps = predictor.read_out(predictor.predict_raw(images, (2, 3)))
    mean = truncated_normal_mean(located, sigma, RANGE)
    expected = {"raw": located, "clamped": located.clamp(*RANGE), "mean": mean}
    for name, depth in expected.items():
        torch.testing.assert_close(maps[name][0, 0], depth.expand(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("readout", "metres"), [("raw", 10.0), ("clamped", 8.0), ("mean", 10.0)])
def test_predict_returns_the_readout_that_was_chosen_in_float32(readout, metres, dtype):
    network, criterion = Shrinking(), MSELoss(label_range=(1.0, 8.0))
    network.dtype = dtype
    depth = Predictor(network, criterion, UNCHANGED, readout).predict(WHITE)
    assert depth.dtype == np.float32
    assert np.allclose(depth, np.full((3, 5), metres))


@pytest.mark.parametrize("size", [(60, 80), (48, 48), (31, 97), (200, 50)])
def test_the_depth_has_the_images_own_size_and_the_network_stays_as_it_was(model, size):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predictor, image = Predictor(model.train(), None, SPEC), np.zeros((*size, 3), dtype=np.uint8)
    first, second = predictor.predict(image), predictor.predict(image)
    assert first.shape == size
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("channels", [1, 3, 4], ids=["grey", "colour", "alpha"])
def test_a_file_gives_what_its_pixels_give(model, image, tmp_path, channels):
    pixels = np.dstack([image[..., ::-1], image[..., 0]])[..., :channels]
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    shown = image if channels > 1 else np.repeat(image[..., 2:], 3, axis=2)
    predictor = Predictor(model, None, SPEC)
    expected = predictor.predict(shown)
    for path in (tmp_path / "image.png", str(tmp_path / "image.png")):
        assert np.array_equal(predictor.predict(path), expected)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"float32 \(4, 4, 3\)"),
        (np.zeros((4, 4), dtype=np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "drop alpha"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"\(0, 4, 3\)"),
        ([[1, 2, 3]], "got list"),
        ("missing.png", "missing.png"),
    ],
)
def test_what_is_no_image_is_refused(bad, message):
    with pytest.raises(DataError, match=message):
        Predictor(Shrinking(), None, UNCHANGED).predict(bad)


@pytest.mark.parametrize(
    ("network", "spec", "readout", "message"),
    [
        (Shrinking(), UNCHANGED, "median", "'median'"),
        (Shrinking(), {"short_side": 240}, "raw", "lacks mean, std"),
        (NO_MAPS, UNCHANGED, "raw", r"depth maps .* Sequential gives \(1, 3\)"),
    ],
)
def test_what_cannot_predict_depth_is_refused(network, spec, readout, message):
    with pytest.raises(ConfigError, match=message):
        Predictor(network, None, spec, readout).predict_raw(torch.zeros(1, 3, 8, 8), (8, 8))


@pytest.mark.parametrize(
    "criterion",
    [
        GAILoss(MIXTURE, label_range=RANGE, init_noise_sigma=0.7, noise="learned"),
        GAILoss(MIXTURE, label_range=RANGE, init_noise_sigma=1.3),
        BNILoss(HISTOGRAM, label_range=RANGE),
        BMCLoss(label_range=RANGE),
        MSELoss(label_range=RANGE),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_a_run_predicts_what_was_trained(tmp_path, model, image, criterion):
    if list(criterion.parameters()):
        with torch.no_grad():
            criterion.noise.log_sigma.add_(0.5)  # as training would, away from init_args
    run = save_run(tmp_path / "run", checkpoint_of(model, criterion))
    expected = Predictor(model, criterion, SPEC).predict(image)
    loaded = load_predictor(run)
    assert not loaded.training
    assert loaded.readout == "mean"
    assert loaded.label_range == RANGE
    assert np.array_equal(loaded.predict(image), expected)


def test_last_and_best_open_without_their_weight_file_but_on_no_missing_device(tmp_path, model):
    model.init_args["weights"] = "/another/machine/mobilenet.pth"
    save_run(tmp_path, checkpoint_of(model, MSELoss(), "clamped"))
    model.initialise_bias(7.0)
    save_run(tmp_path, checkpoint_of(model, MSELoss(), "raw"), "best")
    for name, readout, bias in (("last", "clamped", 3.0), ("best", "raw", 7.0)):
        loaded = load_predictor(tmp_path, checkpoint=name)
        assert loaded.model.network.segmentation_head[0].bias.item() == bias
        assert (loaded.readout, loaded.label_range) == (readout, RANGE)
        assert loaded.model.init_args["weights"] is None
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"cannot predict on device {device}"):
        load_predictor(tmp_path, device=device)


def test_modules_of_other_libraries_must_be_handed_over_but_for_torchs(tmp_path):
    content = checkpoint_of(Shrinking(), nn.L1Loss())
    with pytest.raises(CheckpointError, match=r"model of .*Shrinking.*pass classes=\[Shrinking\]"):
        load_predictor(save_run(tmp_path, content))
    predictor = load_predictor(tmp_path, classes=[Shrinking])
    assert isinstance(predictor.model, Shrinking)
    assert isinstance(predictor.criterion, nn.L1Loss)


SMP = "depthbal.models.SmpDepth"


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"class_path": SMP, "init_args": {"depth": 3}}, "cannot be made"),
        ({"class_path": SMP, "init_args": {"arch": "unett"}}, "unett"),
        ({"class_path": "depthbal.priors.Histogram", "init_args": {}}, "not a class of depthbal"),
        (unet(arch_args={"decoder_channels": [16, 8, 8, 4, 4]}), r"SmpDepth: .*decoder"),
    ],
)
def test_a_model_or_loss_that_is_not_that_of_the_weights_is_a_checkpoint_error(
    tmp_path, model, described, message
):
    run = save_run(tmp_path, checkpoint_of(model, MSELoss(), model=described))
    with pytest.raises(CheckpointError, match=message):
        load_predictor(run)
    content = checkpoint_of(model, GAILoss(MIXTURE, init_noise_sigma=2.0))
    content["depthbal"]["criterion"]["init_args"]["noise"] = "learned"
    with pytest.raises(CheckpointError, match=r"into the criterion.*log_sigma"):
        load_predictor(save_run(tmp_path, content))


NAMES = ["os.system", "antigravity.Model", "depthbal.__main__.Model"]


@pytest.mark.parametrize("name", [*NAMES, "depthbal.models.weights.os.system", "colorsys.YIQ"])
def test_no_module_that_a_checkpoint_names_is_imported(tmp_path, model, name):
    described = {"class_path": name, "init_args": {"command": "touch sprung"}}
    run = save_run(tmp_path, checkpoint_of(model, MSELoss(), model=described))
    load_predictor(save_run(tmp_path / "warm", checkpoint_of(model, MSELoss())))
    before = set(sys.modules)
    for module in ("antigravity", "colorsys"):
        sys.modules.pop(module, None)
    with pytest.raises(CheckpointError, match="not a class of depthbal"):
        load_predictor(run)
    assert not {"antigravity", "colorsys"} & set(sys.modules)
    assert all(module.startswith("depthbal") for module in set(sys.modules) - before)


def test_predictions_are_balanced_afterwards_with_the_checkpoints_histogram(tmp_path, model, image):
    run = save_run(tmp_path, checkpoint_of(model, MSELoss(label_range=RANGE)))
    plain, balanced = load_predictor(run), load_predictor(run, posthoc_sigma=0.8)
    plain.readout = "raw"
    raw = torch.from_numpy(plain.predict(image)).double()
    expected = balance_predictions(raw, HISTOGRAM, 0.8, RANGE)
    np.testing.assert_allclose(balanced.predict(image), expected, rtol=1e-5, atol=1e-5)
    without = save_run(tmp_path, checkpoint_of(model, MSELoss(), histogram=None))
    with pytest.raises(ConfigError, match="holds no histogram"):
        load_predictor(without, posthoc_sigma=0.8)
    other = save_run(tmp_path, checkpoint_of(model, BMCLoss()))
    with pytest.raises(ConfigError, match="BMCLoss, which balances already"):
        load_predictor(other, posthoc_sigma=0.8)


class Scalar(nn.Module):
    """The mean of the red channel, in hundreds."""

    def forward(self, images):
        return 100 * images[:, 0].mean((1, 2))


def test_networks_of_one_label_predict_it_with_its_interval():
    criterion = BMCLoss(label_range=(0.0, 100.0), init_noise_sigma=5.0)
    predictor = Predictor(Scalar(), criterion, {**UNCHANGED, "size": 8}, "raw")
    value, (low, high) = predictor.predict_with_interval(np.full((4, 6, 3), 102, dtype=np.uint8))
    assert (value.shape, low.shape, high.shape) == ((), (), ())
    assert value == pytest.approx(40.0, abs=1e-4)
    assert (high - value, value - low) == pytest.approx((5.0, 5.0), abs=0.01)


def test_predicting_needs_neither_the_engine_nor_the_augmentations(tmp_path, model):
    save_run(tmp_path, checkpoint_of(model, GAILoss(MIXTURE, label_range=RANGE)))
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((60, 80, 3), dtype=np.uint8))
    code = (
        "import json, sys, depthbal\n"
        "depth = depthbal.load_predictor(sys.argv[1]).predict(sys.argv[1] + '/image.png')\n"
        "heavy = {'pytorch_lightning', 'lightning', 'albumentations', 'jsonargparse'}\n"
        "print(json.dumps([depth.shape, sorted(heavy & set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[60, 80], []]
