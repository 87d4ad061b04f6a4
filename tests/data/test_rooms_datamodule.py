"""RoomsDataModule: splits, batches, arguments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from depthbal.data import RoomsDataModule
from depthbal.data.rooms import datamodule as rooms_datamodule
from depthbal.data.rooms.datamodule import RENDERER_VERSION
from depthbal.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def sets_of(data: RoomsDataModule) -> list[Any]:
    return [data.train_set, data.val_set, data.test_set]


def small(**arguments: Any) -> RoomsDataModule:
    counts = {"n_train": 12, "n_val": 4, "n_test": 6, "size": (48, 64), "cache": False}
    return RoomsDataModule(**(counts | {"batch_size": 4} | arguments))


def test_batches_have_the_images_size_and_half_of_it_for_training_depth() -> None:
    data = small()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 48, 64)
    assert batch["depth"].shape == (4, 1, 24, 32)
    assert batch["image"].dtype == batch["depth"].dtype == torch.float32
    test = next(iter(data.test_dataloader()))
    assert test["depth"].shape == (4, 1, 48, 64)


def test_the_splits_have_the_asked_sizes_and_share_no_picture() -> None:
    data = small()
    data.setup()
    sets = [data.train_set, data.val_set, data.test_set]
    assert [len(part) for part in sets if part is not None] == [12, 4, 6]
    depths = [part.source.load(i)[1].tobytes() for part in sets if part for i in range(len(part))]
    assert len(set(depths)) == 22


def test_preparing_fills_the_cache_that_setup_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = small(cache=True)
    data.prepare_data()
    assert len(list((tmp_path / "depthbal" / "rooms").glob("*.npz"))) == 3
    monkeypatch.setattr(rooms_datamodule, "room", pytest.fail)  # rendering again would fail
    data.setup()
    assert data.train_set is not None


def test_the_description_names_seed_size_and_renderer() -> None:
    data = small(seed=5, picture_seed=6)
    data.setup()
    described = data.describe()
    assert described["images"] == {"train": 12, "val": 4, "test": 6}
    assert described["size"] == [48, 64]
    assert described["seed"] == 5
    assert described["picture_seed"] == 6
    assert "seed 6" in described["source"]
    assert described["renderer"] == RENDERER_VERSION
    assert data.input_spec()["short_side"] == 48
    assert data.benchmark is None
    assert data.quantum is None


def test_another_seed_is_another_order_of_the_same_pictures() -> None:
    one, other = small(seed=1), small(seed=2)
    one.setup()
    other.setup()
    assert one.fingerprint() == other.fingerprint()
    for first, second in zip(sets_of(one), sets_of(other), strict=True):
        np.testing.assert_array_equal(first.source.load(0)[0], second.source.load(0)[0])
    orders = [[index for _, index in data.train_dataloader().sampler] for data in (one, other)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    images = [data.train_set[0, 0]["image"] for data in (one, other)]  # type: ignore[index]
    assert not torch.equal(*images)


def test_the_defaults_are_those_of_the_embedded_configs() -> None:
    config = yaml.safe_load((ROOT / "depthbal/configs/rooms/base.yaml").read_text())["data"][
        "init_args"
    ]
    assert RoomsDataModule().counts == {"train": config["n_train"], "val": 80, "test": 160}


@pytest.mark.parametrize(
    "wrong", [{"n_train": 0}, {"n_val": -1}, {"seed": -1}, {"picture_seed": -1}, {"size": (4, 64)}]
)
def test_impossible_arguments_say_what_was_expected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        small(**wrong)
