import json

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from depthbal import Predictor
from depthbal.errors import ConfigError
from depthbal.exporting.export import export_predictor
from depthbal.exporting.formats import open_graph
from depthbal.losses import GAILoss, MSELoss
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import Histogram

RANGE = (0.7, 10.0)
SPEC = {"short_side": None, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
SIZE = (24, 36)


class HalfSize(nn.Module):
    """Depths from below the label range to beyond it, at half the images' size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, stride=2, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-1, 1.4, 27).view(1, 3, 3, 3))
            self.conv.bias.fill_(5.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


def predictor(readout: str) -> Predictor:
    loss = GAILoss(init_noise_sigma=1.3, label_range=RANGE)
    return Predictor(HalfSize(), loss, SPEC, readout)


def expected_depth(model: Predictor, images: list[np.ndarray]) -> np.ndarray:
    batch = torch.cat([model.normalise(image) for image in images])
    return model.predict_maps(batch, SIZE)[model.readout].squeeze(1).numpy()


@pytest.mark.parametrize("name", ["onnx", "torch"])
@pytest.mark.parametrize("readout", ["raw", "clamped", "mean"])
def test_the_file_gives_the_predictors_depth_for_any_number_of_images(name, readout, tmp_path):
    model = predictor(readout)
    path = tmp_path / "model"
    difference = export_predictor(model, name, path, pictures(2), {"name": "nyud2_dir"})
    run = open_graph(name, path)
    for count in (1, 3):
        images = pictures(count, seed=count)
        found = run(np.stack(images))
        expected = expected_depth(model, images)
        assert found.shape == (count, *SIZE)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 2e-4
    assert expected.max() - expected.min() > 1.0  # the network says something
    assert 0 <= difference.mean <= difference.largest < 2e-4
    assert difference.images == 2


def test_networks_balanced_afterwards_are_exported_balanced(tmp_path):
    histogram = Histogram.regular(0.7, 10.0, 0.1)
    histogram.update(torch.linspace(0.71, 9.99, 5000) ** 0.7 + 0.2)
    model = Predictor(
        HalfSize(), MSELoss(), SPEC, "mean", posthoc=BalanceMap(histogram, 1.0, RANGE)
    )
    model.label_range = RANGE
    path = tmp_path / "model.onnx"
    export_predictor(model, "onnx", path, pictures(1), {})
    images = pictures(1)
    found = open_graph("onnx", path)(np.stack(images))
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert entries["posthoc_noise_sigma_m"] == "1.0"
    plain = expected_depth(Predictor(HalfSize(), MSELoss(), SPEC, "raw"), images)
    assert np.abs(found - expected_depth(model, images)).max() < 1e-2
    assert np.abs(found - plain).max() > 0.1


def test_onnx_metadata_say_unit_size_read_out_and_protocol(tmp_path):
    path = tmp_path / "model.onnx"
    export_predictor(predictor("mean"), "onnx", path, pictures(1), {"name": "nyud2_dir"})
    written = onnx.load(path)
    onnx.checker.check_model(written)
    for value in (*written.graph.input, *written.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    found = {entry.key: entry.value for entry in written.metadata_props}
    assert (found["unit"], found["height"], found["width"]) == ("m", "24", "36")
    assert found["readout"] == "mean"
    assert json.loads(found["protocol"]) == {"name": "nyud2_dir"}
    assert json.loads(found["label_range"]) == [0.7, 10.0]


def test_the_torch_archive_holds_the_same_metadata(tmp_path):
    path = tmp_path / "model.pt2"
    export_predictor(predictor("mean"), "torch", path, pictures(1), {"name": "nyud2_dir"})
    files = {"depthbal.json": ""}
    torch.export.load(path, extra_files=files)
    found = json.loads(files["depthbal.json"])
    assert (found["unit"], found["height"], found["protocol"]["name"]) == ("m", 24, "nyud2_dir")


class Eigen(HalfSize):
    """Uses an operator that ONNX does not have."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.linalg.eigvals(images[0, 0, :3, :3]).real.sum()


def test_an_operator_that_onnx_lacks_is_named_and_nothing_is_written(tmp_path):
    model = Predictor(Eigen(), None, SPEC, "raw")
    with pytest.raises(ConfigError, match=r"Eigen cannot be exported as onnx: .*eig.*format torch"):
        export_predictor(model, "onnx", tmp_path / "model.onnx", pictures(1), {})
    assert list(tmp_path.iterdir()) == []


class Moody(HalfSize):
    """Gives something else when it is called through Python than what was recorded."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + (0.0 if torch.compiler.is_compiling() else 1.0)


def test_a_graph_that_differs_from_pytorch_is_not_kept(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_text("earlier")
    with pytest.raises(ConfigError, match=r"differs from PyTorch by up to 1 m"):
        export_predictor(Predictor(Moody(), None, SPEC, "raw"), "torch", path, pictures(1), {})
    assert path.read_text() == "earlier"


def test_images_of_different_sizes_are_refused(tmp_path):
    images = [*pictures(1), np.zeros((8, 8, 3), dtype=np.uint8)]
    with pytest.raises(ConfigError, match="of one size"):
        export_predictor(predictor("raw"), "onnx", tmp_path / "model.onnx", images, {})


class OneNumber(HalfSize):
    """A number per image, as networks of ages give."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).mean(dim=(2, 3))


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_network_that_gives_no_maps_is_refused_as_that(name, tmp_path):
    model = Predictor(OneNumber(), None, SPEC, "raw")
    with pytest.raises(ConfigError, match=r"depth maps .* OneNumber gives \(2, 1\)"):
        export_predictor(model, name, tmp_path / "model", pictures(2), {})
    assert list(tmp_path.iterdir()) == []
