"""Networks of transformers: the real classes, tiny and random, saved to and read from folders."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as hf
from transformers.models.glpn import GLPNImageProcessor

from depthbal.checkpoint import build_module, describe_module
from depthbal.data.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from depthbal.errors import CheckpointError, ConfigError
from depthbal.models import HFDepth

IMAGENET = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
DPT_RULE = {
    **IMAGENET,
    "image_processor_type": "DPTImageProcessor",
    "size": {"height": 56, "width": 56},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
    "resample": 3,
}
STATE = {"image_size": 28, "patch_size": 14, "hidden_size": 16, "num_hidden_layers": 2}
SPREAD = {"initializer_range": 0.2}  # with less the output is constant
DINOV2 = hf.Dinov2Config(
    **STATE,
    **SPREAD,
    num_attention_heads=2,
    mlp_ratio=2,
    out_indices=[1, 2],
    reshape_hidden_states=False,
)
NECK = {"neck_hidden_sizes": [4, 4], "fusion_hidden_size": 8, "head_hidden_size": 4}


def depth_anything(kind="metric", **changes):
    return hf.DepthAnythingConfig(
        backbone_config=DINOV2,
        patch_size=14,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        depth_estimation_type=kind,
        **{**NECK, **SPREAD, "max_depth": 20, **changes},
    )


def dpt():
    return hf.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        **SPREAD,
    )


def zoe():
    beit = hf.BeitConfig(
        image_size=32,
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )
    return hf.ZoeDepthConfig(
        backbone_config=beit,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
    )


def glpn():
    sizes = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1] * 4}
    return hf.GLPNConfig(depths=[1] * 4, decoder_hidden_size=8, **sizes)


def depth_pro():
    sub = {
        "model_type": "dinov2",
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
    }
    return hf.DepthProConfig(
        patch_size=16,
        fusion_hidden_size=8,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1],
        scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[8, 8, 8],
        merge_padding_value=0,
        image_model_config=sub,
        patch_model_config=sub,
        fov_model_config=sub,
        use_fov_model=True,
    )


SQUARE = {**IMAGENET, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
KINDS = {  # configuration, processor, output
    "depth_anything": (depth_anything(), DPT_RULE, "own"),
    "new head": (depth_anything("relative"), DPT_RULE, "new"),
    "dpt": (dpt(), {**SQUARE, "size": {"height": 32, "width": 32}}, "metric"),
    "zoedepth": (zoe(), {**SQUARE, "size": {"height": 32, "width": 64}}, "own"),
    "glpn": (glpn(), {"do_normalize": False, "size_divisor": 32}, "own"),
    "depth_pro": (depth_pro(), {**SQUARE, "size": {"height": 64, "width": 64}}, "own"),
}


def make(kind="depth_anything", **changes):
    config, processor, output = KINDS[kind]
    torch.manual_seed(0)
    limit = {"max_depth": 20} if kind == "new head" else {}
    given = {"config": config.to_dict(), "processor": processor, "output": output}
    return HFDepth(**{**given, **limit, **changes})


def save(folder, kind="depth_anything"):
    make(kind).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_any_class_gives_metres_at_the_images_size_and_all_its_parameters_learn(kind):
    model = make(kind)
    depth = model.train()(torch.randn(2, 3, 61, 75))
    assert depth.shape == (2, 1, 61, 75)
    assert depth.min() >= 0
    assert depth.max() <= (model.max_depth or 1e4)
    depth.log1p().sum().backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused  # processes that train together would wait for them
    assert model.get_submodule(model.encoder_name)


def seen_by(model, picture):
    """What reaches the network of a picture."""
    seen = []
    model.network.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    with torch.no_grad():
        model(normalise(picture)[None])
    return seen[0]


@pytest.mark.parametrize("size", [(48, 64), (37, 125), (103, 77), (23, 30), (56, 56)])
@pytest.mark.parametrize("kept", [True, False])
def test_a_picture_reaches_the_network_as_its_image_processor_would_bring_it(size, kept):
    rule = {**DPT_RULE, **SQUARE, "size": {"height": 56, "width": 70}, "keep_aspect_ratio": kept}
    model = make(processor=rule).eval()
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = np.repeat(np.repeat(picture[::8, ::8], 8, 0), 8, 1)[: size[0], : size[1]]
    processor = hf.DPTImageProcessor(**rule)
    expected = processor(images=picture, return_tensors="pt")["pixel_values"]
    found = seen_by(model, picture)
    assert found.shape == expected.shape
    tolerance = 1e-5 if size == expected.shape[-2:] else 0.05  # it rounds to 8 bit, and clips
    assert (found - expected).abs().mean() < tolerance


def test_glpn_sees_values_of_0_to_1_in_multiples_of_32():
    model, picture = make("glpn").eval(), np.full((70, 90, 3), 255, np.uint8)
    expected = GLPNImageProcessor()(images=picture[:64, :64], return_tensors="pt")["pixel_values"]
    found = seen_by(model, picture)
    assert found.shape == (1, 3, 64, 96)
    torch.testing.assert_close(found[..., :64], expected)


def test_a_folder_of_transformers_predicts_as_it_does_there_and_back_again(tmp_path):
    saved = hf.DepthAnythingForDepthEstimation(depth_anything()).eval()
    saved.save_pretrained(tmp_path / "theirs")
    hf.DPTImageProcessor(**DPT_RULE).save_pretrained(tmp_path / "theirs")
    model = HFDepth(str(tmp_path / "theirs")).eval()
    images = torch.randn(2, 3, 56, 70)
    with torch.no_grad():
        expected = saved(pixel_values=images).predicted_depth
        assert expected.std() > 0.1
        assert torch.equal(model(images)[:, 0], expected)
        model.save_pretrained(tmp_path / "ours")
        again = hf.AutoModelForDepthEstimation.from_pretrained(tmp_path / "ours").eval()
        assert torch.equal(again(pixel_values=images).predicted_depth, expected)
    processor = hf.AutoImageProcessor.from_pretrained(tmp_path / "ours")
    assert (processor.ensure_multiple_of, processor.keep_aspect_ratio) == (14, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_opens_without_the_folder_and_without_a_network(kind, tmp_path, monkeypatch):
    output, limit = KINDS[kind][2], {"max_depth": 20} if kind == "new head" else {}
    hf.AutoModelForDepthEstimation.from_config(KINDS[kind][0]).save_pretrained(tmp_path / "net")
    rule = tmp_path / "net" / "preprocessor_config.json"
    name = {"glpn": "GLPN", "zoedepth": "ZoeDepth", "depth_pro": "DepthPro"}.get(kind, "DPT")
    rule.write_text(json.dumps({"image_processor_type": f"{name}ImageProcessor", **KINDS[kind][1]}))
    size = {"size": (28, 28)} if kind == "depth_anything" else {}
    model = HFDepth(str(tmp_path / "net"), output, **limit, **size).eval()
    described = json.loads(json.dumps(describe_module(model)))
    shutil.rmtree(tmp_path / "net")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asks the network"))
    again = build_module(tmp_path / "last.ckpt", "model", described).eval()
    again.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 50, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images))
    assert again.network_size(50, 64) == model.network_size(50, 64)


def test_a_new_head_starts_at_the_mean_depth_and_an_old_one_is_left_alone():
    for kind, moved in (("new head", True), ("depth_anything", False)):
        model, images = make(kind).eval(), torch.randn(1, 3, 56, 56)
        with torch.no_grad():
            before = model(images)
            model.initialise_bias(3.0)
            assert torch.equal(model(images), before) != moved
            assert (abs(model(images).mean() - 3.0) < 0.5) == moved


def test_the_range_of_a_head_can_be_set_and_its_parameters_stay(tmp_path):
    folder, images = save(tmp_path), torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        near, far = HFDepth(folder).eval()(images), HFDepth(folder, max_depth=80.0).eval()(images)
    torch.testing.assert_close(far, 4 * near)


@pytest.mark.parametrize(
    ("kind", "far", "end"),
    [
        ("depth_anything", 79.5, 80),  # whole metres
        ("depth_anything", 10.0, 20),  # what was trained to 20 m stays
        ("new head", 9.0, 9),
        ("glpn", 12.0, 12),
        ("zoedepth", 80.0, None),
        ("dpt", 80.0, None),
    ],
)
def test_a_head_reaches_as_far_as_the_data(kind, far, end):
    model, told, images = make(kind, max_depth=None), make(kind), torch.randn(1, 3, 32, 32)
    if kind == "new head":
        with pytest.raises(ConfigError, match="a new head needs max_depth"):
            model(images)
    if kind != "dpt":
        told = make(kind, max_depth=end)
    model.set_label_range((1.0, far))
    assert model.max_depth == told.max_depth == end
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), told.eval()(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"config": depth_anything("relative").to_dict()},
            "inverse depth .* not metres; output: n",
        ),
        ({"config": dpt().to_dict()}, "does not say, not metres; .*output: metric"),
        ({"output": "new", "max_depth": 20}, "metres already"),
        ({"max_depth": 9.5}, "takes whole metres"),
        ({"config": dpt().to_dict(), "output": "metric", "max_depth": 9}, "end nowhere"),
        ({"config": {**depth_anything().to_dict(), "max_depth": 20.5}}, "max_depth.*int"),
        ({"config": {"model_type": "bert"}}, "a bert is no network of depth; those are .*zoedepth"),
        ({"config": None}, "name or folder"),
        ({"weights": "/nowhere", "config": None}, "/nowhere cannot be read .*folder that save_pre"),
    ],
)
def test_what_is_no_metric_network_is_refused_with_the_way_out(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_what_a_folder_lacks_is_named(tmp_path):
    folder = tmp_path / "net"
    save(folder)
    (folder / "preprocessor_config.json").rename(tmp_path / "rule.json")
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json of .*net cannot be read"):
        HFDepth(str(folder))
    (tmp_path / "rule.json").rename(folder / "preprocessor_config.json")
    (folder / "model.safetensors").rename(tmp_path / "weights")
    with pytest.raises(ConfigError, match=r"no file named model\.safetensors"):
        HFDepth(str(folder))
    half = make().network.state_dict()
    half.pop("head.conv1.bias")
    make().network.save_pretrained(folder, state_dict=half)
    with pytest.raises(CheckpointError, match=r"lacks parameters.*head\.conv1\.bias"):
        HFDepth(str(folder))


def test_an_image_smaller_than_a_patch_and_a_missing_library_are_one_line(monkeypatch):
    with pytest.raises(ConfigError, match=r"1 x 300 are too small .*multiples of 14"):
        make()(torch.zeros(1, 3, 1, 300))
    monkeypatch.setattr("depthbal.models.hf.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "depthbal\[hf\]"'):
        make()
