"""Re-training a head: the backbone stays as it is, bit by bit, and what is refused."""

import json
import math
import shutil

import pytest
import torch
import yaml

from depthbal.adapters.age import model, retraining, task
from depthbal.adapters.age.command import run as command
from depthbal.errors import CheckpointError, ConfigError, RunFolderError
from tests.adapters.age.helpers import CONFIGS, tiny_config, train_age, weights_of

EPOCHS = "--trainer.max_epochs=3"


def retrain(*arguments: object) -> None:
    command([str(argument) for argument in arguments], CONFIGS / "unused.py", CONFIGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory, cache_folder):
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        return train_age("--config", tiny_config(folder / "tiny.yaml"), "--out", folder / "run")


@pytest.fixture(scope="module")
def gai(base, tmp_path_factory, cache_folder):
    out = tmp_path_factory.mktemp("gai") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_folder))
        retrain("--config", CONFIGS / "rrt_gai.yaml", "--base", base, "--out", out, EPOCHS)
    return out


def backbone_and_head(run):
    state = weights_of(run)
    backbone = {k: v for k, v in state.items() if k.startswith("model.backbone.")}
    return backbone, {k: v for k, v in state.items() if k.startswith("model.head.")}


def assert_same_backbone(run, base):
    mine, theirs = backbone_and_head(run)[0], backbone_and_head(base)[0]
    assert any("running_var" in name for name in mine)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


def test_the_backbone_is_bit_identical_afterwards(gai, base):
    assert_same_backbone(gai, base)


def test_the_backbone_is_bit_identical_where_it_sees_augmented_images(base, tmp_path):
    out = tmp_path / "run"
    arguments = ["--config", CONFIGS / "rrt_bmc.yaml", "--base", base, "--out", out]
    retrain(*arguments, "--model.cache_features=false", "--trainer.max_epochs=1")
    assert_same_backbone(out, base)


def test_the_head_is_new_and_trained(gai, base):
    head, former = backbone_and_head(gai)[1], backbone_and_head(base)[1]
    assert head.keys() == former.keys()
    assert not any(torch.allclose(head[name], former[name]) for name in head)


def test_cached_features_give_the_head_that_plain_images_give(base, tmp_path):
    plain = ["--data.padding=0", "--data.flip=0", EPOCHS]
    for name, cached in (("cached", "true"), ("images", "false")):
        arguments = ["--config", CONFIGS / "rrt_bni.yaml", "--base", base, *plain]
        retrain(*arguments, f"--model.cache_features={cached}", "--out", tmp_path / name)
    cached, images = (backbone_and_head(tmp_path / name)[1] for name in ("cached", "images"))
    for name in cached:
        torch.testing.assert_close(cached[name], images[name], rtol=1e-5, atol=1e-5)


def test_gai_has_two_components_and_learns_sigma_from_ten_at_a_rate_of_a_hundredth(gai):
    prior = json.loads((gai / "prior.json").read_text())
    assert len(prior["weights"]) == 2
    log_sigma = next(v for k, v in weights_of(gai).items() if k.endswith("log_sigma"))
    steps = torch.load(gai / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    # Adam moves a parameter by about its rate in every step, here in one direction
    assert abs(log_sigma.item() - math.log(10)) == pytest.approx(0.01 * steps, rel=0.3)


def test_a_base_is_read_once_for_the_settings_and_once_for_the_training(
    base, tmp_path, monkeypatch
):
    read, read_checkpoint = [], retraining.read_checkpoint
    monkeypatch.setattr(
        retraining, "read_checkpoint", lambda file: read.append(file) or read_checkpoint(file)
    )
    arguments = ["--config", CONFIGS / "rrt_gai.yaml", "--base", base, "--out", tmp_path / "run"]
    retrain(*arguments, "--trainer.max_epochs=1")
    assert [file.name for file in read] == ["last.ckpt", "last.ckpt"]


def test_model_data_and_seed_come_from_the_base_run_and_the_schedule_from_the_config(gai, base):
    mine, theirs = (yaml.safe_load((run / "config.yaml").read_text()) for run in (gai, base))
    assert mine["data"] == theirs["data"]
    assert mine["model"]["model"] == theirs["model"]["model"]
    assert mine["seed_everything"] == theirs["seed_everything"]
    assert mine["model"]["optimizer"]["init_args"]["lr"] == 1e-4
    assert mine["model"]["lr_scheduler"] is None
    assert mine["model"]["criterion"]["class_path"].endswith("GAILoss")


def test_an_interrupted_retraining_goes_on_without_its_base(gai, base, tmp_path):
    moved = shutil.copytree(base, tmp_path / "base")
    arguments = ["--config", CONFIGS / "rrt_gai.yaml", "--base", moved, "--out", tmp_path / "run"]
    retrain(*arguments, "--trainer.max_epochs=1")
    shutil.rmtree(moved)
    retrain("--resume", tmp_path / "run", EPOCHS)
    resumed, whole = weights_of(tmp_path / "run"), weights_of(gai)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_weights_that_the_base_started_from_are_not_asked_for_again(base, tmp_path):
    other = shutil.copytree(base, tmp_path / "base")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["model"]["model"]["init_args"]["weights"] = str(tmp_path / "gone.pth")
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", CONFIGS / "rrt_plain.yaml", "--base", other]
    retrain(*arguments, "--out", tmp_path / "run", "--trainer.max_epochs=1")
    assert_same_backbone(tmp_path / "run", base)


def test_other_training_data_are_a_warning(base, tmp_path):
    arguments = ["--config", CONFIGS / "rrt_plain.yaml", "--base", base, "--out", tmp_path / "run"]
    with pytest.warns(UserWarning, match="training data are not those"):
        retrain(*arguments, "--data.picture_seed=7", "--trainer.max_epochs=1")


def test_a_base_of_another_backbone_is_refused_before_a_run_folder_is_made(base, tmp_path):
    arguments = ["--config", CONFIGS / "rrt_gai.yaml", "--base", base, "--out", tmp_path / "run"]
    with pytest.raises(
        CheckpointError, match=r'"test_resnet".*"test_efficientnet".*--model\.model'
    ):
        retrain(*arguments, "--model.model.init_args.backbone=test_efficientnet")
    assert not (tmp_path / "run").exists()


def test_a_base_of_another_backbone_is_refused_before_weights_are_fetched(
    base, tmp_path, monkeypatch
):
    monkeypatch.setattr(model, "timm_backbone", None)  # building one would fail
    arguments = ["--config", CONFIGS / "rrt_gai.yaml", "--base", base, "--out", tmp_path / "run"]
    other = ["--model.model.backbone=test_vit", "--model.model.weights=imagenet"]
    with pytest.raises(CheckpointError, match=r'"test_resnet".*"test_vit"'):
        retrain(*arguments, *other)


def test_smoothing_of_cached_features_is_refused_before_they_are_computed(
    base, tmp_path, monkeypatch
):
    monkeypatch.setattr(task, "use_features", None)  # computing them would fail
    arguments = ["--config", CONFIGS / "rrt_fds.yaml", "--base", base, "--out", tmp_path / "run"]
    with pytest.raises(ConfigError, match=r"--model\.cache_features false"):
        retrain(*arguments, "--model.cache_features=true")
    assert not (tmp_path / "run").exists()


def test_a_base_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        retrain("--config", CONFIGS / "rrt_gai.yaml", "--base", tmp_path / "nothing")


def test_a_base_without_backbone_and_head_is_refused(base, tmp_path):
    other = shutil.copytree(base, tmp_path / "depth")
    file = other / "checkpoints/last.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"] = {"model.network.weight": torch.zeros(1)}
    content["depthbal"]["model"]["name"] = "SmpDepth"
    torch.save(content, file)
    with pytest.raises(RunFolderError, match="trained SmpDepth"):
        retrain("--config", CONFIGS / "rrt_gai.yaml", "--base", other)


def test_a_retraining_without_base_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match="--base RUN"):
        retrain("--config", CONFIGS / "rrt_gai.yaml", "--out", tmp_path / "run")


def copied_base(base, folder, max_epochs, ended):
    """A run of one epoch whose config asks for more; `ended` by a callback, or cut off."""
    run = shutil.copytree(base, folder / "cut")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["max_epochs"] = max_epochs
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    versions = json.loads((run / "versions.json").read_text())
    if not ended:
        del versions["duration_s"]
    (run / "versions.json").write_text(json.dumps(versions))
    return run


@pytest.mark.parametrize("wanted", [90, None])
def test_a_base_that_was_cut_off_is_refused_with_both_epochs_and_the_command(
    wanted, base, tmp_path
):
    cut = copied_base(base, tmp_path, wanted, ended=False)
    command = rf"epoch 1 of {wanted}.*python tools/train_age\.py --resume {cut}"
    with pytest.raises(RunFolderError, match=command):
        retrain("--config", CONFIGS / "rrt_gai.yaml", "--base", cut, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("wanted", "ended"), [(90, True), (1, False)])
def test_a_base_that_stopped_by_itself_or_has_all_its_epochs_is_taken(
    wanted, ended, base, tmp_path
):
    run = copied_base(base, tmp_path, wanted, ended)
    arguments = ["--config", CONFIGS / "rrt_plain.yaml", "--base", run, "--out", tmp_path / "run"]
    retrain(*arguments, "--trainer.fast_dev_run=true")


def test_the_backbone_of_the_best_epoch_is_taken_where_asked(base, tmp_path):
    other = shutil.copytree(base, tmp_path / "base")
    best = torch.load(other / "checkpoints/best.ckpt", weights_only=True)
    name = next(name for name in best["state_dict"] if name.startswith("model.backbone."))
    best["state_dict"][name] += 1
    torch.save(best, other / "checkpoints/best.ckpt")
    arguments = ["--config", CONFIGS / "rrt_plain.yaml", "--base", other, "--out", tmp_path / "run"]
    retrain(*arguments, "--model.base_checkpoint=best", "--trainer.max_epochs=1")
    assert torch.equal(weights_of(tmp_path / "run")[name], best["state_dict"][name])


def test_a_base_for_a_training_of_the_whole_network_is_refused(base, tmp_path):
    whole = tiny_config(tmp_path / "whole.yaml")
    with pytest.raises(ConfigError, match="train a head only"):
        retrain("--config", whole, "--base", base, "--out", tmp_path / "run")


RETRAININGS = [path for path in sorted(CONFIGS.glob("rrt_*.yaml")) if path.stem != "rrt_base"]


@pytest.mark.parametrize("path", RETRAININGS, ids=lambda path: path.stem)
def test_every_retraining_takes_a_step_of_the_published_schedule(path, base, tmp_path):
    arguments = ["--config", path, "--base", base, "--out", tmp_path / "run"]
    retrain(*arguments, "--trainer.fast_dev_run=true")
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    model = config["model"]
    assert config["trainer"]["max_epochs"] == 30
    assert (model["optimizer"]["class_path"], model["lr_scheduler"]) == ("torch.optim.Adam", None)
    assert model["optimizer"]["init_args"]["lr"] == 1e-4
    assert model["optimizer"]["init_args"]["weight_decay"] == 0
    assert model["retrain"]
    settings = model["criterion"]["init_args"]
    if "noise" in settings:
        assert (settings["noise"], settings["init_noise_sigma"]) == ("learned", 10)
        assert model["noise_lr"] == 0.01
