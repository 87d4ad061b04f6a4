"""Cached features: the same as those of the images, in the same order, and computed once."""

import pytest
import torch
from torch import nn

from depthbal.adapters.age import AgeRegressor
from depthbal.adapters.age import features as features_module
from depthbal.adapters.age.features import use_features
from depthbal.training.frozen_features import encode, fingerprint
from tests.adapters.age.helpers import GreyAges


@pytest.fixture
def backbone() -> nn.Module:
    torch.manual_seed(0)
    model = AgeRegressor("test_resnet", library="timm")
    with torch.no_grad():  # running statistics that differ from those of a batch
        model.train()(torch.rand(8, 3, 32, 32))
    return model.backbone.eval()


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many images went through a network, per split that had to be computed."""
    counts: list[int] = []
    real = features_module.compute_features

    def compute(backbone, images, *args, **kwargs):
        counts.append(len(images))
        return real(backbone, images, *args, **kwargs)

    monkeypatch.setattr(features_module, "compute_features", compute)
    return counts


def built(backbone: nn.Module, **settings) -> GreyAges:
    data = GreyAges(**settings)
    data.setup("fit")
    use_features(data, backbone)
    return data


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_features_are_those_of_the_plain_images_in_the_same_order(backbone, loader):
    cached = built(backbone, picture_seed=1)
    images = GreyAges(picture_seed=1, padding=0, flip=0.0)
    images.setup("fit")
    pairs = list(zip(getattr(cached, loader)(), getattr(images, loader)(), strict=True))
    assert pairs
    for ours, theirs in pairs:
        assert ours["index"].tolist() == theirs["index"].tolist()
        assert torch.equal(ours["label"], theirs["label"])
        with torch.no_grad():
            torch.testing.assert_close(ours["features"], backbone(theirs["image"]))


def test_features_of_the_training_mode_would_be_others(backbone):
    data = GreyAges(padding=0, flip=0.0)
    data.setup("fit")
    images = next(iter(data.train_dataloader()))["image"]
    frozen = encode(backbone, images)
    assert not torch.allclose(encode(backbone.train(), images), frozen, rtol=1e-2)


def test_features_are_computed_once_for_the_same_weights_and_images(backbone, computed):
    first = built(backbone, picture_seed=2)
    again = built(backbone, picture_seed=2)
    assert computed == [len(first.train_set), len(first.val_set)]
    assert torch.equal(first.train_set.features, again.train_set.features)


def test_other_images_and_other_weights_are_computed_anew(backbone, computed):
    built(backbone, picture_seed=3)
    built(backbone, picture_seed=4)
    name, value = next(iter(backbone.state_dict().items()))
    before = fingerprint(backbone)
    backbone.load_state_dict({**backbone.state_dict(), name: value + 1e-3})
    assert fingerprint(backbone) != before
    built(backbone, picture_seed=3)
    assert len(computed) == 6


def test_running_statistics_are_part_of_the_fingerprint(backbone):
    before = fingerprint(backbone)
    statistics = next(m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    statistics.running_var += 0.1
    assert fingerprint(backbone) != before


def test_a_damaged_cache_file_is_computed_again(backbone, computed, cache_folder):
    first = built(backbone, picture_seed=5)
    for file in (cache_folder / "depthbal/features").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-100])
    again = built(backbone, picture_seed=5)
    assert len(computed) == 4
    assert torch.equal(first.train_set.features, again.train_set.features)


def test_a_cache_that_cannot_be_written_is_no_error(backbone, computed, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(built(backbone, picture_seed=6).train_set) == computed[0]


def test_frozen_features_are_exact_whatever_the_precision(backbone):
    images = torch.rand(4, 3, 32, 32)
    exact = backbone(images).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encode(backbone, images)
    assert features.dtype == torch.float32
    assert torch.equal(features, exact)
    assert not features.requires_grad


def test_padding_has_no_label(backbone):
    sample = built(backbone, picture_seed=1).train_set[-1]
    assert sample["label"].isnan()
    assert sample["index"] == -1
