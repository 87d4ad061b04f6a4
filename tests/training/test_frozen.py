"""Cached features: the same as those of the images, in the same order, and computed once."""

import copy

import pytest
import torch
from torch import nn

from depthbal.data.dataset import SeededDataset
from depthbal.data.label_data import LabelData
from depthbal.training import tuning
from depthbal.training.tuning import use_features


class Noise(SeededDataset):
    """Random pictures of a seed, brightened by augmentation."""

    features = None

    def __init__(self, count: int, seed: int, augmented: bool = False) -> None:
        super().__init__()
        self.images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.picture_seed, self.augmented = seed, augmented

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index, seed):
        if self.features is not None:
            return {"features": self.features[index], "index": index}
        return {"image": self.images[index] + self.augmented * seed % 7, "index": index}

    def plain(self):
        other = copy.copy(self)
        other.augmented, other.features = False, None
        return other

    def fingerprint(self):
        return f"{self.picture_seed} {len(self)}"


class Pictures(LabelData):
    def __init__(self, seed: int) -> None:
        super().__init__(batch_size=4, num_workers=0)
        self.train_set, self.val_set = Noise(10, seed, augmented=True), Noise(5, seed)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def backbone() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    network.train()(torch.rand(8, 3, 8, 8) * 3)  # running statistics unlike those of a batch
    return network


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """How many pictures went through a network, per data set that had to be computed."""
    counts: list[int] = []
    real = tuning.LateLoader
    monkeypatch.setattr(
        tuning,
        "LateLoader",
        lambda data, **options: counts.append(len(data)) or real(data, **options),
    )
    return counts


def built(backbone, seed=0):
    data = Pictures(seed)
    use_features(data, backbone)
    return data


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_features_are_those_of_the_plain_images_in_the_same_order(backbone, loader):
    data, images = built(backbone), Pictures(0)
    images.train_set.augmented = False
    pairs = list(zip(getattr(data, loader)(), getattr(images, loader)(), strict=True))
    assert pairs
    for ours, theirs in pairs:
        assert ours["index"].tolist() == theirs["index"].tolist()
        assert not ours["features"].requires_grad
        with torch.no_grad():
            torch.testing.assert_close(ours["features"], backbone.eval()(theirs["image"]))
            training = copy.deepcopy(backbone).train()(theirs["image"])
            assert not torch.allclose(ours["features"], training, rtol=0.1)


def test_features_are_computed_once_for_the_same_weights_and_images(backbone, passes, tmp_path):
    first = built(backbone)
    assert passes == [10, 5]
    assert torch.equal(first.train_set.features, built(backbone).train_set.features)
    assert passes == [10, 5]
    built(backbone, seed=1)  # other images
    assert len(passes) == 4
    for number, part in enumerate((backbone[0].weight, backbone[1].running_mean)):
        part.data += 1e-3
        built(backbone)  # another backbone, by its weights or its statistics
        assert len(passes) == 6 + 2 * number
    for file in (tmp_path / "depthbal/features").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-100])
    built(backbone)  # damaged files
    assert len(passes) == 10


def test_features_are_exact_whatever_the_precision(backbone):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = built(backbone).val_set.features
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, backbone(Noise(5, 0).images).detach())
