"""How much of a network is trained, and what becomes of it: frozen, slowed, LoRA, averaged."""

import copy
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import transformers as hf
from torch import nn

from depthbal import load_predictor
from depthbal.checkpoint import network_state
from depthbal.data.dataset import SeededDataset
from depthbal.data.label_data import LabelData
from depthbal.errors import ConfigError
from depthbal.export import open_graph
from depthbal.losses import BinsLoss, GAILoss, MSELoss
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.training import DepthTask, open_run, tuning
from depthbal.training.tuning import trained_parameters, use_features
from tests.models.test_hf import make, save
from tests.training.helpers import (
    GAI,
    MSE,
    STEP_LR,
    checkpoint_of,
    command,
    logged,
    resume,
    rooms_of_the_test,
    same_weights,
    tiny_config,
    train_tiny,
)


def small_vit():
    arguments = {"decoder_fusion_channels": 8, "decoder_intermediate_channels": [8] * 4}
    return SmpDepth("dpt", "tu-vit_tiny_patch16_224", arch_args=arguments)


NETWORKS = {
    "HFDepth": make,
    "vit": small_vit,
    "resnet": lambda: SmpDepth("fpn", "resnet18"),
    "published": ResNetMFF,
}
PLAIN = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1))


def hf_config(tmp_path, criterion=GAI, **settings):
    """Return a config of a tiny Depth Anything saved in a folder."""
    network = {"class_path": "HFDepth", "init_args": {"weights": save(tmp_path / "net")}}
    model = {"model": network, "criterion": criterion, "lr_scheduler": STEP_LR, **settings}
    return tiny_config(tmp_path / "tiny.yaml", model=model)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_frozen_encoder_keeps_weights_and_statistics_and_the_rest_learns(name):
    task = DepthTask(NETWORKS[name](), MSELoss(), freeze="encoder").train()
    encoder = task.model.get_submodule(task.model.encoder_name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    task.predict({"image": torch.randn(2, 3, 64, 64)}).square().mean().backward()
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert any(parameter.grad is not None for parameter in task.model.parameters())
    numbers = re.findall(r"[\d,]*\d", trained_parameters(task.model))
    found = [int(text.replace(",", "")) for text in numbers]
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert found[2:] == [0, count]
    assert found[0] <= found[1] - count == sum(p.numel() for p in task.model.parameters()) - count


@pytest.mark.parametrize(
    ("name", "rates"),  # by a parameter: powers of the decay after the encoder's factor
    [
        (
            "HFDepth",
            {
                "backbone.embeddings.cls_token": 3,
                "backbone.encoder.layer.0.attention.q_proj.weight": 2,
                "backbone.encoder.layer.1.mlp.fc1.weight": 1,
                "backbone.layernorm.weight": 1,
                "head.conv1.weight": None,
            },
        ),
        (
            "vit",
            {
                "encoder.model.pos_embed": 13,
                "encoder.model.blocks.0.attn.qkv.weight": 12,
                "encoder.model.blocks.11.mlp.fc1.weight": 1,
                "segmentation_head.head.0.weight": None,
            },
        ),
        ("resnet", {"encoder.conv1.weight": 5, "encoder.layer4.0.conv1.weight": 1}),
    ],
)
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_the_encoder_learns_slower_and_its_early_layers_slower_still(name, rates, decay):
    task = DepthTask(
        NETWORKS[name](),
        GAILoss(noise="learned"),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.8),
        noise_lr=0.3,
        encoder_lr=0.1,
        layer_decay=decay,
    )
    groups = task.configure_optimizers().param_groups
    found = {id(p): group["lr"] for group in groups for p in group["params"]}
    own = dict(task.model.network.named_parameters())
    for parameter, power in rates.items():
        expected = 0.8 if power is None else 0.8 * 0.1 * decay**power
        assert found[id(own[parameter])] == pytest.approx(expected)
    assert [group["lr"] for group in groups if group["name"] == "noise"] == [0.3]
    trained = [p for p in task.parameters() if p.requires_grad]
    assert len(found) == len(trained) == sum(len(group["params"]) for group in groups)


@pytest.mark.parametrize("name", ["HFDepth", "vit"])
@pytest.mark.parametrize("lora", [4, {"r": 2, "lora_alpha": 6, "target_modules": ["fc1"]}])
def test_lora_trains_little_and_its_weights_go_into_the_network(name, lora):
    plain = NETWORKS[name]()
    task = DepthTask(NETWORKS[name](), MSELoss(), lora=lora).eval()
    images = torch.randn(1, 3, 64, 64)
    trained = [key for key, p in task.model.named_parameters() if p.requires_grad]
    prefix = task.model.encoder_name
    assert all(".lora_" in key for key in trained if key.startswith(prefix))
    assert any(not key.startswith(prefix) for key in trained)
    with torch.no_grad():
        for key, parameter in task.model.named_parameters():
            if ".lora_" in key:
                parameter.normal_(std=0.05)  # more would be chaotic
        learned = task.model(images)
        content = {"state_dict": task.state_dict(), "depthbal": task.describe()}
        assert task.lora == json.loads(json.dumps(task.lora))
        plain.load_state_dict(network_state(content))
        torch.testing.assert_close(plain.eval()(images), learned, rtol=1e-4, atol=1e-4)
        for key, parameter in task.model.named_parameters():
            if ".lora_B" in key:
                parameter.zero_()
        assert (task.model(images) - learned).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["HFDepth", "vit"])
def test_recomputed_activations_give_the_same_gradients(name):
    images, gradients, calls = torch.randn(1, 3, 64, 64), [], []
    for again in (False, True):
        torch.manual_seed(0)
        task = DepthTask(NETWORKS[name](), MSELoss(), gradient_checkpointing=again)
        modules = task.model.named_modules()
        part = next(m for key, m in modules if re.search(r"\.0\.att(n|ention)$", key))
        part.register_forward_pre_hook(lambda *_, again=again: calls.append(again))
        torch.manual_seed(1)
        task.train().model(images).square().mean().backward()
        gradients.append([p.grad for p in task.model.parameters() if p.grad is not None])
    assert calls == [False, True, True]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


NO_ENCODER = r"Sequential does not name its encoder.*\['0'\]"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet", {"lora": 4}, "finds none of .* its linear layers end in nothing"),
        ("HFDepth", {"lora": {"target_modules": ["qkv"]}}, r"\['qkv'\].* end in fc1, fc2, k_proj,"),
        ("HFDepth", {"lora": {"use_dora": True}}, "no use_dora; it has r, lora_alpha"),
        ("resnet", {"gradient_checkpointing": True}, "SmpDepth cannot recompute activations"),
        ("HFDepth", {"ema": 1.5}, "ema between 0 and 1"),
        ("HFDepth", {"freeze": ["neckk"]}, r"no part 'neckk'; it has \['network', 'encoder'\]"),
        ("HFDepth", {"criterion": BinsLoss()}, "64 bins, and HFDepth gives metres: take another"),
        *(("plain", one, NO_ENCODER) for one in ({"freeze": "encoder"}, {"encoder_lr": 0.1})),
        ("plain", {"lora": 4}, NO_ENCODER),
    ],
)
def test_what_a_network_cannot_do_is_one_line(name, settings, message):
    network = PLAIN if name == "plain" else NETWORKS[name]()
    with pytest.raises(ConfigError, match=message):
        DepthTask(network, **{"criterion": MSELoss(), **settings})


def test_a_missing_peft_is_one_line(monkeypatch):
    monkeypatch.setattr("depthbal.training.tuning.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "depthbal\[hf\]"'):
        DepthTask(make(), MSELoss(), lora=4)


SEEN = []  # by `Weights`


class Weights(pl.Callback):
    """Keep a weight and the noise scale after every step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        values = pl_module.model.network.head.conv3.weight, pl_module.criterion.noise.log_sigma
        SEEN.append([value.detach().double().clone() for value in values])


def test_the_average_is_what_is_validated_kept_evaluated_and_exported(tmp_path):
    SEEN.clear()
    config = hf_config(tmp_path, ema=0.9)
    watched = f"--trainer.callbacks+={__name__}.Weights"
    run = train_tiny(config, tmp_path / "run", "--trainer.precision=32-true", watched)
    (average, sigma), rest = SEEN[0], SEEN[1:]
    for step, (weight, log_sigma) in enumerate(rest, 1):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
        sigma = decay * sigma + (1 - decay) * log_sigma
    content = checkpoint_of(run)
    kept = content["state_dict"]["model.network.head.conv3.weight"].double()
    torch.testing.assert_close(kept, average, rtol=1e-5, atol=1e-7)
    assert (kept - SEEN[-1][0]).abs().max() > 1e-4
    torch.testing.assert_close(
        content["state_dict"]["criterion.noise.log_sigma"].double(), sigma, rtol=1e-5, atol=1e-6
    )
    prior = json.loads((run / "prior.json").read_text())["prior"]
    means = content["state_dict"]["criterion._prior.means"].flatten()
    assert means.tolist() == pytest.approx(np.ravel(prior["means"]).tolist(), rel=1e-6)
    (best,) = {row["val/rmse_bins"] for row in logged(run) if row["epoch"] == "1"} - {""}
    task = open_run(run).task()
    torch.testing.assert_close(task.model.network.head.conv3.weight.double(), kept)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    data = open_run(run).data
    task.validation = task.make_scores(data, "val")
    (found,) = trainer.validate(task, datamodule=data, verbose=False)
    assert found["val/rmse_bins"] == pytest.approx(float(best), rel=1e-5)


@pytest.mark.parametrize("lora", [None, 4])
def test_rates_average_and_lora_go_on_where_they_stopped_without_the_folder(tmp_path, lora):
    settings = {"ema": 0.9, "encoder_lr": 0.5, "layer_decay": 0.7, "lora": lora}
    config = hf_config(tmp_path, **settings)
    whole = train_tiny(config, tmp_path / "whole")
    cut = train_tiny(config, tmp_path / "cut", "--trainer.max_epochs=1")
    shutil.rmtree(tmp_path / "net")
    resume(cut, "--trainer.max_epochs", "2")
    assert same_weights(whole, cut)
    assert logged(whole) == logged(cut)
    one, other = (checkpoint_of(run)["optimizer_states"][0]["param_groups"] for run in (whole, cut))
    assert [group["lr"] for group in one] == [group["lr"] for group in other]
    assert len({group["lr"] for group in one}) == len(one)
    assert len(one) == (5 if lora is None else 4)  # layers (not the frozen first), rest, noise


def test_another_training_starts_from_the_weights_of_one_with_lora_and_the_reverse(tmp_path):
    config = hf_config(tmp_path, lora=4)
    first = train_tiny(config, tmp_path / "first")
    learned = network_state(checkpoint_of(first))
    for name, lora in (("plain", "null"), ("lora", "2")):
        options = [f"--model.weights_from={first}", f"--model.lora={lora}"]
        run = train_tiny(config, tmp_path / name, *options, "--model.optimizer.lr=0")
        state = network_state(checkpoint_of(run))
        assert all(torch.equal(state[key], value) for key, value in learned.items())


def test_a_fine_tuned_network_is_evaluated_balanced_predicts_and_is_exported(tmp_path, monkeypatch):
    config = hf_config(tmp_path, MSE, lora=4)
    run = tmp_path / "run"
    assert command("train", "--config", config, "--out", run) == 0
    shutil.rmtree(tmp_path / "net")
    monkeypatch.setattr("depthbal.training.tuning.find_spec", lambda name: None)  # without peft
    assert command("evaluate", run, "--posthoc", 1) == 0
    assert (run / "eval" / "posthoc_1" / "metrics.json").is_file()
    image = rooms_of_the_test()[0][0]
    cv2.imwrite(str(tmp_path / "room.png"), image[..., ::-1])
    assert command("predict", run, tmp_path / "room.png", "--out", tmp_path) == 0
    assert command("export", run, "--readout", "raw") == 0
    predictor = load_predictor(run)
    predictor.readout = "raw"
    expected = predictor.predict(image)
    assert expected.std() > 0.01
    found = open_graph("onnx", run / "model_raw.onnx")(image[None])[0]
    assert np.abs(found - expected).max() < 1e-3
    assert command("export", run, "--format", "hf", "--out", tmp_path / "folder") == 0
    assert command("export", run, "--format", "hf", "--out", tmp_path / "folder") == 2
    assert command("export", run, "--format", "hf", "--posthoc", 1) == 2
    network = hf.AutoModelForDepthEstimation.from_pretrained(tmp_path / "folder").eval()
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    with torch.no_grad():
        outputs = network(**processor(images=image, return_tensors="pt"))
    (depth,) = processor.post_process_depth_estimation(outputs, [image.shape[:2]])
    found = depth["predicted_depth"].numpy()
    assert np.abs(found - expected).mean() < 0.1 * expected.std() + 0.02  # bicubic there


def test_networks_of_others_are_no_folders_for_transformers(finished_run, capsys):
    assert command("export", finished_run, "--format", "hf") == 2
    assert "networks that come from it (HFDepth), not for SmpDepth" in capsys.readouterr().err


# ---- cached features of a frozen backbone ----


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


@pytest.fixture
def backbone(monkeypatch, tmp_path) -> nn.Module:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
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
