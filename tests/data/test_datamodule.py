import json

import pytest
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningModule, Trainer

from depthbal.data import (
    DepthDataModule,
    EpochSampler,
    FolderDataModule,
    NYUD2DataModule,
    RoomsDataModule,
    StreetsDataModule,
)
from depthbal.errors import ConfigError
from tests.data.make_files import SMALL, write_nyud2
from tests.training.helpers import QUIET


class Recorder(LightningModule):
    """Trains one weight on the mean of the images and notes which samples it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, step):
        self.seen.setdefault(self.current_epoch, []).extend(
            zip(batch["index"].tolist(), batch["image"].mean((1, 2, 3)).tolist(), strict=True)
        )
        return (self.weight - batch["image"].mean()) ** 2

    def validation_step(self, batch, step):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nyud2")
    write_nyud2(folder, scenes=11, per_scene=2, n_test=5)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*logging interval")
def test_lightning_keeps_the_sampler_and_moves_its_epoch(root, workers):
    module = NYUD2DataModule(root, **{**SMALL, "num_workers": workers, "val_fraction": 0.1})
    model = Recorder()
    trainer = Trainer(max_epochs=3, logger=False, enable_progress_bar=False, **QUIET)
    trainer.fit(model, module)
    assert isinstance(trainer.train_dataloader.sampler, EpochSampler)
    alone = EpochSampler(module.train_set, seed=0)
    for epoch in range(3):
        alone.set_epoch(epoch)
        expected = [(i, module.train_set[e, i]["image"].mean()) for e, i in alone]
        seen = model.seen[epoch]
        assert [i for i, _ in seen] == [i for i, _ in expected]
        means = torch.tensor([mean for _, mean in seen])
        torch.testing.assert_close(means, torch.stack([mean for _, mean in expected]))


@pytest.mark.parametrize(
    ("batch_size", "batches", "left_out"),
    [(4, 6, 0), (7, 3, 1), (21, 1, 1), (22, 1, 0), (30, 1, 0), (1, 22, 0)],
)
def test_only_a_last_batch_of_one_sample_is_left_out(root, batch_size, batches, left_out, caplog):
    module = NYUD2DataModule(root, **{**SMALL, "batch_size": batch_size, "val_fraction": 0.0})
    module.setup("fit")
    with caplog.at_level("INFO"):
        sizes = [len(batch["index"]) for batch in module.train_dataloader()]
    assert len(sizes) == batches
    assert sum(sizes) == 22 - left_out
    assert ("leaves out 1 of 22" in caplog.text) == bool(left_out)


def test_batches_and_description_are_as_documented(root):
    module = NYUD2DataModule(root, **SMALL)
    for use in (module.train_dataloader, module.test_dataloader, module.train_histogram):
        with pytest.raises(ConfigError, match=r"call setup\(\) first"):
            use()
    module.setup()
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    train, val, test = (next(iter(loader)) for loader in loaders)
    assert train["image"].shape == (4, 3, 20, 28)
    assert train["depth"].shape == (4, 1, 10, 14)
    assert val["depth"].shape[1:] == test["depth"].shape[1:] == (1, 20, 28)
    assert train["image"].dtype == train["depth"].dtype == torch.float32
    assert train["index"].dtype == torch.int64
    described = json.loads(json.dumps(module.describe()))
    assert described["class"] == "NYUD2DataModule"
    assert described["images"] == {"train": 20, "val": 2, "test": 5}
    assert described["source"] == str(root)
    assert described["fingerprint"] == module.fingerprint()
    assert json.loads(json.dumps(module.input_spec()))["short_side"] == 24


@pytest.mark.parametrize("kind", [NYUD2DataModule, FolderDataModule])
def test_the_command_line_knows_all_arguments_of_the_common_part(kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DepthDataModule, "data")
    arguments = ("root=/data", "crop_size=[114,152]", "depth_size=null", "val_fraction=0")
    options = [f"--data=depthbal.data.{kind.__name__}", *(f"--data.{a}" for a in arguments)]
    module = parser.instantiate_classes(parser.parse_args(options)).data
    assert type(module) is kind
    assert module.count_transform.crop_size == (114, 152)
    assert module.count_transform.depth_size is None
    assert module.val_fraction == 0


HEIGHTS = {"root": ".", "label": "height", "zero_is_label": True, "depth_range": (0, 60)}


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (NYUD2DataModule, {"root": ".", "crop_size": (0, 5)}, "crop_size"),
        (NYUD2DataModule, {"root": ".", "bin_width": 0.35}, "bin_width"),
        (NYUD2DataModule, {"root": ".", "depth_range": (0.7, 0.5)}, "depth_range"),
        (RoomsDataModule, {"n_train": 0}, "expected n_train and n_test of at least 1"),
        (RoomsDataModule, {"n_val": -1}, "n_val=-1"),
        (RoomsDataModule, {"seed": -1}, "seed=-1"),
        (RoomsDataModule, {"picture_seed": -1}, "picture_seed=-1"),
        (RoomsDataModule, {"size": (4, 64)}, r"size=\(4, 64\)"),
        (StreetsDataModule, {"sparse": 0}, "expected sparse"),
        (StreetsDataModule, {"size": (32, 64), "sparse": 33}, "expected sparse"),
        (StreetsDataModule, {"depth_range": (2.0, 200.0)}, "expected sparse"),
        (FolderDataModule, {**HEIGHTS, "invalid": [0.0]}, r"0 is a height .*--data\.invalid"),
        (FolderDataModule, {**HEIGHTS, "inverse": True}, "0 is a height"),
        (FolderDataModule, {**HEIGHTS, "zero_is_label": False}, "0 < LO < HI"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_at_once(kind, settings, words):
    with pytest.raises(ConfigError, match=words):
        kind(**settings)
