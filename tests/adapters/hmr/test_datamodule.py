"""The data module: which data sets it takes, what it refuses, and what it says about the labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthbal.adapters.hmr.datamodule import HmrDataModule
from depthbal.adapters.hmr.density import label_density, save_density
from depthbal.adapters.hmr.layout import TEST, TRAINING
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.errors import ConfigError, DataError

ROWS = {"mpi_inf_3dhp": 60, "lsp": 30, "coco": 100}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_synthetic(tmp_path / "data", rows=ROWS, test_rows=40)


def data_in(root: Path, **options: Any) -> HmrDataModule:
    data = HmrDataModule(str(root), batch_size=16, num_workers=0, **options)
    data.setup("fit")
    return data


def groups(data: HmrDataModule) -> set[str]:
    assert data.train_set is not None
    return set(data.train_set.people.group.tolist())


def test_any_subset_of_the_data_sets_works(root: Path) -> None:
    assert groups(data_in(root)) == set(ROWS)
    (root / TRAINING["mpi_inf_3dhp"].rows).unlink()
    assert groups(data_in(root)) == {"lsp", "coco"}
    only = data_in(root, datasets=["lsp"])
    assert groups(only) == {"lsp"}
    assert only.ratios == {"lsp": 1.0}


def test_an_epoch_has_as_many_samples_as_the_largest_data_set(root: Path) -> None:
    data = data_in(root, val_fraction=0.0)
    data.use_backbone(None, "cpu")
    batches = list(data.train_dataloader())
    assert sum(len(batch["index"]) for batch in batches) == 100
    assert batches[0]["input"].shape == (16, 64)


def test_data_sets_without_bodies_are_left_out_unless_they_are_named(root: Path) -> None:
    (root / TRAINING["coco"].static).unlink()
    assert groups(data_in(root)) == {"mpi_inf_3dhp", "lsp"} - {"lsp"} | {"lsp"}
    with pytest.raises(DataError, match=r"no picture of coco has a body.*coco_2014_train"):
        data_in(root, datasets=["coco"])


def test_a_known_body_needs_no_fit_and_unknown_rows_then_do_not_count(root: Path) -> None:
    known = np.load(root / TRAINING["mpi_inf_3dhp"].rows)["has_smpl"]
    (root / TRAINING["mpi_inf_3dhp"].static).unlink()
    data = data_in(root, datasets=["mpi_inf_3dhp"], val_fraction=0.0)
    assert data.train_set is not None
    assert data.train_set.people.valid.tolist() == (known > 0).tolist()


def test_held_out_rows_are_not_trained_on(root: Path) -> None:
    data = data_in(root, val_fraction=0.2)
    assert data.train_set is not None
    assert data.val_set is not None
    held, kept = (set(s.people.files.tolist()) for s in (data.val_set, data.train_set))
    assert not held & kept
    assert len(held) == 38  # a fifth of every data set: 12, 6 and 20


def test_features_follow_their_rows(root: Path) -> None:
    data = data_in(root, val_fraction=0.2)
    data.use_backbone(None, "cpu")
    stored = {name: np.load(TRAINING[name].features(root)) for name in ROWS}
    for part in (data.train_set, data.val_set):
        assert part is not None
        for index in range(len(part)):
            name = part.people.group[index]
            row = int(Path(part.people.files[index]).stem)
            np.testing.assert_array_equal(part[index]["input"], stored[name][row])


def test_a_folder_without_training_data_says_what_is_expected(tmp_path: Path, root: Path) -> None:
    for name in ROWS:
        (root / TRAINING[name].rows).unlink()
    with pytest.raises(DataError, match=r"no training data.*--check"):
        data_in(root)
    with pytest.raises(ConfigError, match="up3d"):
        HmrDataModule(str(root), datasets=["up3d"])
    with pytest.raises(DataError, match="3dpw_test"):
        data_in(tmp_path)


def test_a_test_set_without_bodies_is_refused(root: Path) -> None:
    arrays = dict(np.load(root / TEST.rows))
    del arrays["pose"], arrays["shape"]
    np.savez(root / TEST.rows, **arrays)
    with pytest.raises(DataError, match=r"3dpw_test.*pose and shape"):
        data_in(root)


def test_the_training_histogram_counts_every_body_once_and_is_cached_by_content(
    root: Path,
) -> None:
    data = data_in(root, val_fraction=0.0)
    histogram = data.train_histogram()
    assert histogram.total == 190
    assert len(histogram.counts) == 100
    fits = root / TRAINING["coco"].static
    np.save(fits, 2 * np.load(fits))
    assert data_in(root, val_fraction=0.0).fingerprint() != data.fingerprint()


def test_the_density_counts_geodesic_distances_and_draws_them(root: Path) -> None:
    data = data_in(root, val_fraction=0.0)
    density = label_density(data)
    assert data.train_set is not None
    # the mean pose of the synthetic folder is the rest pose: angles are lengths of the vectors
    angles = np.linalg.norm(data.train_set.people.pose.reshape(-1, 24, 3), axis=-1)
    angles = np.minimum(angles, np.abs(2 * np.pi - angles))
    expected = np.histogram(angles.mean(1), bins=100)
    np.testing.assert_allclose(density.edges, expected[1], atol=1e-5)
    assert np.abs(density.counts - expected[0]).sum() <= 2  # rounding at an edge
    save_density(density, root / "figure.png")
    assert (root / "figure.png").read_bytes()[:4] == b"\x89PNG"
