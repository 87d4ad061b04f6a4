"""The training images of a list, from folders and from packed data."""

import shutil

import pytest
import torch

from depthbal.data import NYUD2DataModule, RoomsDataModule
from depthbal.data.packing import pack
from depthbal.errors import ConfigError, DataError
from depthbal.training.feature_subset import subset_loader
from tests.data.make_files import SMALL, write_nyud2


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


def test_the_listed_images_come_without_augmentation_and_twice_the_same(folder):
    module = module_of(folder)
    found = samples(subset_loader(module, "subset.csv"))
    again = samples(subset_loader(module, "subset.csv"))
    source, transform = module.train_set.source, module.count_transform
    expected = [transform(*source.load(index)) for index in range(0, 22, 3)]
    assert len(found["image"]) == 8
    for number, (image, depth) in enumerate(expected):
        assert torch.equal(found["image"][number], image)
        assert torch.equal(found["depth"][number], depth)
    assert torch.equal(found["image"], again["image"])


def test_packed_data_give_the_same_images(folder, tmp_path):
    file = tmp_path / "packed.h5"
    pack(folder, file, 24)
    shutil.copy(folder / "data" / "subset.csv", tmp_path / "beside.csv")
    one = samples(subset_loader(module_of(folder), "subset.csv"))
    other = samples(subset_loader(module_of(file), "beside.csv"))
    assert torch.equal(one["image"], other["image"])
    assert torch.equal(one["depth"], other["depth"])


def test_images_held_out_for_validation_stay_out(folder, caplog):
    module = module_of(folder, val_fraction=0.3)
    with caplog.at_level("INFO", logger="depthbal"):
        found = samples(subset_loader(module, "subset.csv"))
    held_out = {module.val_set.source.name(i) for i in range(len(module.val_set))}
    assert held_out
    assert len(found["image"]) < 8
    assert f"{len(found['image'])} of the 8 images" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no list mine\.csv.*null"),
        ("data/a.jpg,data/a.png\n", r"none of its 1 rows.*nyu2_train/scene00_out/1\.jpg"),
        ("data/a.jpg\n", "expected rows image path,depth path, got 'data/a.jpg'"),
        (b"\xff\xfe\x00", "not a readable csv list"),
    ],
)
def test_a_list_that_does_not_serve_is_named(folder, tmp_path, content, message):
    path = tmp_path / "mine.csv"
    if isinstance(content, str):
        path.write_text(content)
    elif content:
        path.write_bytes(content)
    name = str(path) if content else "mine.csv"
    with pytest.raises(DataError, match=message):
        subset_loader(module_of(folder), name)


def test_other_data_are_refused():
    with pytest.raises(ConfigError, match="RoomsDataModule"):
        subset_loader(RoomsDataModule(), "subset.csv")  # its training split is not built
