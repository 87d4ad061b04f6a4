"""The embedded streets: geometry by closed form and by loops, sky, haze, sparse rays, splits."""

import json

import numpy as np
import pytest

from depthbal.data import StreetsDataModule
from depthbal.data.rooms.datamodule import RenderedSource
from depthbal.data.rooms.render import render, through_air
from depthbal.data.rooms.scene import BOX, Air, Camera, Material, Pattern, Scene, Solid
from depthbal.data.streets import Street
from tests.training.helpers import command

GREY = Material(Pattern(), (0.4,) * 3)
AIR = Air((0.0, 1.0, 0.0), (1.0,) * 3, 0.01, (1.0, 0.9, 0.8), (0.2, 0.4, 0.9), (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def train():
    return RenderedSource(Street, "train", 120, (32, 64), 0, cache=False).pairs["depth"]


def test_a_plane_is_as_deep_as_a_rays_closed_form_says_and_above_it_is_the_sky():
    camera = Camera(48, 64, 50.0, (0.0, 1.5, 0.0), pitch=0.1)
    ground = Solid(BOX, (0.0, -1.0, 200.0), (500.0, 1.0, 400.0), GREY)
    scene = Scene(camera, (ground,), depth_range=(2.0, 120.0), air=AIR)
    image, depth = render(scene, np.random.default_rng(0))
    below = (np.arange(48) + 0.5 - 24) / 50
    # a ray's height falls by sin(pitch) + below cos(pitch) per metre of depth
    with np.errstate(divide="ignore"):
        expected = 1.5 / np.maximum(np.sin(0.1) + below * np.cos(0.1), 0)
    expected[expected > 120] = np.inf
    expected[expected < 2] = 0
    assert 0 < np.isinf(expected).sum() < 24
    np.testing.assert_allclose(depth, np.repeat(expected[:, None], 64, axis=1), rtol=1e-4)
    assert image[0].mean() > image[-1].mean()


def test_light_fades_into_the_horizons_colour_with_depth_and_the_sky_turns_to_the_zeniths():
    rays = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 0]], np.float32).T
    depth = np.array([0.0, 100.0, np.inf, np.inf])
    seen = through_air(AIR, np.full((3, 4), 0.3), rays, depth)
    for light, horizon, zenith in zip(seen, AIR.horizon, AIR.zenith, strict=True):
        hazy = 0.3 * np.exp(-1) + horizon * (1 - np.exp(-1))
        np.testing.assert_allclose(light, [0.3, hazy, horizon, zenith], rtol=1e-5)


def test_depths_are_far_and_rare_there_and_a_fifth_of_the_pixels_is_sky(train):
    beyond = np.isinf(train)
    assert 0.1 < beyond.mean() < 0.35
    assert (beyond.mean(axis=(1, 2)) > 0.01).mean() > 0.8
    assert (train == 0).mean() < 0.01
    depth = train[(train > 0) & ~beyond]
    assert depth.min() >= 2.0
    assert depth.max() <= 120.0
    near, middle, far = (((depth > a) & (depth <= a + 10)).mean() for a in (5, 40, 110))
    assert near > 5 * middle > 20 * far
    assert far > 1e-3


def streets(**arguments):
    counts = {"n_train": 4, "n_val": 2, "n_test": 2, "size": (32, 64), "cache": False}
    data = StreetsDataModule(**(counts | {"batch_size": 2} | arguments))
    data.setup()
    return data


def test_training_and_validation_have_every_fourth_row_and_the_test_has_all():
    sparse, dense = streets(rotation=0.0), streets(rotation=0.0, sparse=1)
    for split in ("train", "val", "test"):
        ours, whole = (getattr(data, f"{split}_set").source.load(1)[1] for data in (sparse, dense))
        rows = slice(2, None, 4) if split != "test" else slice(None)
        kept = np.zeros_like(whole)
        kept[rows] = whole[rows]
        np.testing.assert_array_equal(ours, kept)
    assert sparse.fingerprint() != dense.fingerprint()
    assert sparse.describe()["sparse"] == 4
    # every scan line survives the way into a batch, the sky on it too
    batch = next(iter(sparse.train_dataloader()))
    lines = ((batch["depth"] > 0) | batch["beyond"]).any(dim=-1)
    assert lines.sum(dim=-1).tolist() == [[8], [8]]
    assert not (batch["depth"][batch["beyond"]] > 0).any()


@pytest.mark.parametrize("name", ["gai", "gai_censored", "bins"])
def test_a_training_outdoors_says_where_the_sky_is_predicted(name, tmp_path):
    tiny = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.size=[32,64]"]
    tiny += ["--data.n_train=8", "--data.n_val=2", "--data.n_test=2", "--data.batch_size=4"]
    config = ["--config", f"outdoor/{name}", "--model.model.encoder=mobilenet_v2"]
    assert command("train", *config, *tiny, "--out", str(tmp_path / "run")) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    source = RenderedSource(Street, "test", 2, (32, 64), 0, cache=False)
    assert metrics["beyond"]["count"] == np.isinf(source.pairs["depth"]).sum() > 0
    assert 0 <= metrics["beyond"]["nearer_than_half"] <= 1
    prior = json.loads((tmp_path / "run" / "prior.json").read_text())
    assert (prior["histogram"].get("beyond", 0) > 0) == (name != "gai")
