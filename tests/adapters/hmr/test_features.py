"""Features of the frozen backbone: computed once, equal to the image path, never of others."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from depthbal.adapters.hmr.backbone import ResNet50Features, freeze
from depthbal.adapters.hmr.features import load_features
from depthbal.adapters.hmr.network import SpinNetwork
from depthbal.adapters.hmr.people import People, PeopleDataset
from depthbal.errors import DataError


def backbone_of(seed: int) -> ResNet50Features:
    torch.manual_seed(seed)
    return freeze(ResNet50Features())


@pytest.fixture(scope="module")
def backbone() -> ResNet50Features:
    return backbone_of(0)


def people_in(folder: Path, count: int = 3) -> People:
    draw = np.random.default_rng(0)
    for row in range(count):
        pixels = draw.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{row}.png"), pixels)
    return People(
        files=np.array([str(folder / f"{row}.png") for row in range(count)]),
        center=draw.uniform(20, 60, (count, 2)),
        scale=draw.uniform(0.2, 0.5, count),
        pose=draw.normal(size=(count, 72)).astype(np.float32),
        betas=np.zeros((count, 10), np.float32),
        valid=np.ones(count, bool),
        gender=np.full(count, -1),
        group=np.full(count, "coco"),
    )


def test_kept_features_give_the_prediction_of_the_images(
    tmp_path: Path, backbone: ResNet50Features
) -> None:
    people = people_in(tmp_path)
    kept = load_features(tmp_path / "coco.npy", people, backbone)
    network = SpinNetwork().eval()
    network.backbone = backbone
    with torch.inference_mode():
        for row in range(len(people)):
            image = PeopleDataset(people)[row]["input"]
            cached = PeopleDataset(people, features=kept)[row]["input"]
            assert image.shape == (3, 224, 224)
            assert cached.shape == (2048,)
            for one, other in zip(network(image[None]), network(cached[None]), strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_features_are_computed_once_and_anew_for_another_backbone(
    tmp_path: Path, backbone: ResNet50Features
) -> None:
    people, path = people_in(tmp_path, 1), tmp_path / "coco.npy"
    first = np.array(load_features(path, people, backbone))
    written = path.stat().st_mtime_ns
    load_features(path, people, backbone)
    assert path.stat().st_mtime_ns == written
    second = np.array(load_features(path, people, backbone_of(1)))
    assert not np.allclose(first, second)


def test_features_of_other_boxes_are_not_taken(tmp_path: Path, backbone: ResNet50Features) -> None:
    people, path = people_in(tmp_path, 1), tmp_path / "coco.npy"
    first = np.array(load_features(path, people, backbone))
    people.center[:] += 15.0
    assert not np.allclose(first, load_features(path, people, backbone))


def averages() -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(224), nn.Flatten())


def test_features_of_pictures_that_were_replaced_are_computed_again(tmp_path: Path) -> None:
    people, path = people_in(tmp_path), tmp_path / "coco.npy"
    first = np.array(load_features(path, people, averages()))
    cv2.imwrite(str(tmp_path / "1.png"), np.full((60, 80, 3), 200, np.uint8))
    second = np.array(load_features(path, people, averages()))
    assert (first == second).all(axis=1).tolist() == [True, False, True]


def test_features_outlive_their_pictures_and_a_new_name_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    people, path = people_in(tmp_path / "a"), tmp_path / "coco.npy"
    first = np.array(load_features(path, people, averages()))
    written = path.stat().st_mtime_ns
    (tmp_path / "a").rename(tmp_path / "b")
    files = np.array([str(tmp_path / "b" / Path(file).name) for file in people.files.tolist()])
    load_features(path, replace(people, files=files), averages())
    (tmp_path / "b" / "0.png").unlink()
    kept = load_features(path, replace(people, files=files), averages())
    np.testing.assert_array_equal(kept, first)
    assert path.stat().st_mtime_ns == written


def test_the_backbone_is_left_as_it_was(tmp_path: Path, backbone: ResNet50Features) -> None:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    load_features(tmp_path / "coco.npy", people_in(tmp_path, 1), backbone)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_missing_picture_a_missing_backbone_and_foreign_rows_are_named(
    tmp_path: Path, backbone: ResNet50Features
) -> None:
    people, path = people_in(tmp_path), tmp_path / "coco.npy"
    with pytest.raises(DataError, match=r"no .*coco\.npy.*backbone"):
        load_features(path, people, None)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures are missing: \S*1\.png; complete"):
        load_features(path, people, backbone)
    np.save(path, np.zeros((5, 2048), np.float32))
    with pytest.raises(DataError, match=r"coco\.npy.*\(3, F\).*\(5, 2048\)"):
        load_features(path, people, None)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"coco\.npy"):
        load_features(path, people, None)
