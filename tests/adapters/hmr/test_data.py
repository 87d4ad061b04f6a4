"""The data module: which data sets it takes and how they are mixed, features and pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depthbal.adapters.hmr import HmrDataModule, SyntheticPeopleDataModule
from depthbal.adapters.hmr.data import PeopleDataset, mixing_ratios
from depthbal.adapters.hmr.files import read_people, rows_file
from depthbal.data.loader import WeightedSampler
from depthbal.errors import ConfigError, DataError

SIZES = {"h36m": 3000, "mpi_inf_3dhp": 900, "lsp": 100, "lspet": 200, "mpii": 300, "coco": 400}
PUBLISHED = {"h36m": 0.35, "mpi_inf_3dhp": 0.15, "lsp": 0.1, "lspet": 0.1, "mpii": 0.1, "coco": 0.2}


def data_in(root, **options):
    data = HmrDataModule(str(root), batch_size=16, num_workers=0, **options)
    data.setup("fit")
    return data


# ---- mixtures ----


def test_the_shares_are_published_and_the_pictures_in_the_wild_share_by_size():
    expected = {"h36m": 0.3, "mpi_inf_3dhp": 0.1, "lsp": 0.06, "lspet": 0.12, "mpii": 0.18}
    assert mixing_ratios(SIZES) == pytest.approx(expected | {"coco": 0.24})
    assert mixing_ratios(SIZES, PUBLISHED) == pytest.approx(PUBLISHED)
    part = {name: SIZES[name] for name in ("lsp", "coco", "mpi_inf_3dhp")}
    spin = mixing_ratios(part)
    assert spin["mpi_inf_3dhp"] == pytest.approx(0.1 / 0.7)
    assert spin["coco"] / spin["lsp"] == pytest.approx(4)
    assert mixing_ratios(part, PUBLISHED)["coco"] == pytest.approx(0.2 / 0.45)


def test_the_sampler_draws_in_the_shares_and_numbers_its_draws():
    weights = torch.tensor([0.4 / 10] * 10 + [0.6 / 90] * 90, dtype=torch.float64)
    rows = [row for _, row in WeightedSampler(weights, samples=20_000)]
    share = sum(row < 10 for row in rows) / len(rows)
    assert share == pytest.approx(0.4, abs=5 * (0.24 / 20_000) ** 0.5)
    assert set(rows) == set(range(100))
    sampler = WeightedSampler(weights, samples=100)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [row for _, row in first] != [row for _, row in second]
    assert [draw for draw, _ in first + second] == list(range(200))
    parts = [WeightedSampler(weights, samples=100) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.rank, part.num_replicas = rank, 2
    assert sorted([*parts[0], *parts[1]]) == sorted(first)


# ---- which people ----


def test_any_subset_of_the_data_sets_works(root):
    assert set(data_in(root).ratios) == {"mpi_inf_3dhp", "lsp", "coco"}
    rows_file(root, "mpi_inf_3dhp").unlink()
    assert set(data_in(root).ratios) == {"lsp", "coco"}
    assert data_in(root, datasets=["lsp"]).ratios == {"lsp": 1.0}
    (root / "static_fits" / "coco_fits.npy").unlink()  # nobody's body is known
    assert set(data_in(root).ratios) == {"lsp"}
    with pytest.raises(DataError, match=r"no body for any picture of coco: .*no static fits"):
        data_in(root, datasets=["coco"])
    with pytest.raises(DataError, match=r"there is no file .*up3d\.npz"):
        data_in(root, datasets=["up3d"])
    with pytest.raises(ConfigError, match="up3d"):
        HmrDataModule(str(root), mixing={"up3d": 0.5})


def test_a_data_set_may_have_any_name(root):
    named = data_in(root, datasets=["coco", "lsp"], mixing={"coco": 0.9})
    for file in ("dataset_extras/coco_2014_train.npz", "static_fits/coco_fits.npy"):
        (root / file).rename(
            root / file.replace("coco_2014_train", "studio").replace("coco", "studio")
        )
    (root / "features/coco_2014_train.npy").rename(root / "features/studio.npy")
    own = data_in(root, datasets=["studio", "lsp"], mixing={"studio": 0.9})
    assert own.ratios == {"studio": named.ratios["coco"], "lsp": named.ratios["lsp"]}
    assert own.fingerprint() == named.fingerprint()
    np.testing.assert_array_equal(own.train_set.features, named.train_set.features)


def test_held_out_rows_are_not_trained_on_and_features_follow_their_rows(root):
    data = data_in(root, val_fraction=0.2)
    held, kept = (set(s.people["file"].tolist()) for s in (data.val_set, data.train_set))
    assert not held & kept
    assert len(held) == 38  # a fifth of every data set: 12, 6 and 20
    assert len(list(data.train_dataloader().sampler)) == 80  # as many as the largest has
    people = {name: read_people(root, name)["file"].tolist() for name in data.ratios}
    for part in (data.train_set, data.val_set):
        for sample in part:
            name = Path(sample["name"]).parts[-3]
            stored = np.load(root / "features" / f"{rows_file(root, name).stem}.npy")
            row = people[name].index(sample["name"])
            np.testing.assert_array_equal(sample["features"], stored[row])
            assert sample["group"] == f"sequence_{row // 20:03d}"


def test_a_test_set_without_bodies_and_a_folder_without_people_are_refused(root, tmp_path):
    arrays = dict(np.load(rows_file(root, "3dpw")))
    kept = {k: v for k, v in arrays.items() if k not in ("pose", "shape")}
    np.savez(rows_file(root, "3dpw"), **kept)
    with pytest.raises(DataError, match=r"3dpw_test.*pose and shape"):
        data_in(root)
    with pytest.raises(DataError, match=r"no .*3dpw_test\.npz\. What is needed"):
        data_in(tmp_path)


def test_regions_count_every_body_once_and_shots_are_shares_of_them(root):
    data = data_in(root, val_fraction=0.0)
    histogram = data.train_histogram()
    assert (histogram.total, len(histogram.counts)) == (190, 100)
    held = data_in(root, val_fraction=0.2)
    assert (held.train_histogram().edges == histogram.edges).all()  # whoever is held out
    many = [data.bins().shots[b] == "many" for b in range(100)]
    assert many == (histogram.counts / 190 > 0.0074).tolist()
    fits = root / "static_fits" / "coco_fits.npy"
    np.save(fits, 2 * np.load(fits))
    assert data_in(root, val_fraction=0.0).fingerprint() != data.fingerprint()


def test_synthetic_people_are_written_once_and_are_those_of_their_seed(tmp_path):
    first, same, other = (
        SyntheticPeopleDataModule(str(tmp_path / name), people=seed, num_workers=0)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for data in (first, same, other):
        data.setup()
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()
    written = (tmp_path / "a" / "smpl_mean_params.npz").stat().st_mtime_ns
    again = SyntheticPeopleDataModule(str(tmp_path / "a"), people=5)
    again.setup()
    assert (tmp_path / "a" / "smpl_mean_params.npz").stat().st_mtime_ns == written


# ---- pictures ----


def test_a_picture_is_cropped_changed_by_epoch_and_named(root):
    people = {key: column[:1] for key, column in read_people(root, "lsp").items()}
    path = Path(people["file"][0])
    path.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    people |= {"center": np.array([[40.0, 30.0]]), "scale": np.array([0.2])}
    plain = PeopleDataset(people)
    sample = plain[0]
    assert sample["image"].shape == (3, 224, 224)
    assert (sample["name"], sample["group"]) == (str(path), path.parent.name)
    assert (sample["pose"] == people["pose"][0]).all()
    changing = PeopleDataset(people, augment=True)
    one, two, again = (changing[epoch, 0] for epoch in (0, 1, 0))
    assert not torch.equal(one["image"], two["image"])
    assert torch.equal(one["image"], again["image"])
    assert torch.equal(changing.plain()[0]["image"], sample["image"])
    before = changing.fingerprint()
    cv2.imwrite(str(path), pixels[:30])
    assert changing.fingerprint() != before
    padding = plain[-1]
    assert (padding["index"], bool(padding["valid"])) == (-1, False)
