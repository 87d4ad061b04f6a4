"""What README and documentation say runs, and the site builds."""

import html
import importlib.util
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from depthbal.commands import COMMANDS
from depthbal.data import RoomsDataModule
from depthbal.evaluation import DepthBins, JointHistogram, choose_balance
from depthbal.losses import BalanceMap, BMCLoss, BNILoss
from depthbal.priors import Histogram
from depthbal.training.settings import find_config
from tests.documents import PAGES, ROOT, blocks, command_lines, write_files
from tests.reports.browser import require_browser, started_browser
from tests.test_tools import TINY_ROOMS, tool
from tests.training.helpers import TOOLS, command

Names = dict[str, object]
LINES = [(page, line) for page in PAGES for line in command_lines(page) if line[0] in COMMANDS]

# ---- commands ----


def test_every_tool_and_command_that_is_named_exists_and_every_command_has_an_example():
    for path in set(re.findall(r"tools/[a-z_/]+\.\w+", "".join(PAGES.values()))):
        assert (ROOT / path).is_file(), f"{path} is in the documentation and not in the repository"
    named = {line[0] for page in PAGES for line in command_lines(page)}
    assert named - {"synthetic_benchmark"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("page", "line"),
    [pytest.param(*one, id=" ".join(one[1])) for one in LINES if one[1][0] == "train"],
)
def test_every_line_that_trains_parses(page, line, tmp_path, monkeypatch, capsys):
    """The settings are known, the configs are there; the data are the reader's."""
    write_files(page, tmp_path, monkeypatch)
    if "--resume" in line:
        assert all(o.startswith(("--resume", "--trainer.", "--data.")) for o in options(line))
        return
    arguments = [part.replace("$loss", "gai") for part in line[1:] if part != "--print_config"]
    assert command("train", *arguments, "--print_config") == 0, capsys.readouterr().err


def options(line: list[str]) -> list[str]:
    return [part.partition("=")[0] for part in line if part.startswith("--")]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_every_option_of_the_other_commands_is_known(name, capsys):
    assert command(name, "--help") == 0
    shown = capsys.readouterr().out
    for line in (line for _, line in LINES if line[0] == name):
        unknown = [option for option in options(line) if option not in shown]
        assert all(option.startswith(("--data.", "--trainer.")) for option in unknown), line
        for part in line:
            if re.fullmatch(r"(rooms|nyud2|nyuv2_labelled|age|hmr)(/\w+)+", part):
                assert find_config(part).is_file()


# ---- code ----


def needed(title: str) -> str | None:
    """Return the package without which a block is not run."""
    found = re.search(r"run where (\w+) is installed", title)
    return found and found.group(1)


def depths() -> Names:
    """Return what somebody with images and depth has."""
    torch.manual_seed(0)
    training = [0.7 + 9.3 * torch.rand(2, 1, 32, 32) ** 2 for _ in range(3)]
    training[2][..., :8] = 0
    histogram = Histogram.regular(0.7, 10.0, 0.1)
    for depth in training:
        histogram.update(depth[depth > 0])
    network = nn.Conv2d(3, 1, 1)
    pairs = TensorDataset(torch.rand(6, 3, 32, 32), torch.cat(training))
    return {
        **{"training_depths": training, "depth": training[2], "image": torch.rand(2, 3, 32, 32)},
        **{"histogram": histogram, "network": network, "loader": DataLoader(pairs, 2)},
    }


def readme() -> Iterator[Names]:
    names = {**depths(), "np": np}
    yield names
    assert names["loss"].noise.log_sigma.grad is not None
    assert 0.7 < names["metres"].min() < names["metres"].max() < 10.0


def plain_pytorch() -> Iterator[Names]:
    counts, heights = 1 + np.arange(103)[::-1], 1000 * np.exp(-np.arange(60) / 8)
    height = 60 * torch.rand(2, 1, 32, 32)
    names = {
        **depths(),
        **{"smp": smp, "timm": timm, "np": np, "BNILoss": BNILoss},
        **{"height_histogram": Histogram(np.arange(0, 61.0), heights)},
        **{"height": height, "height_is_known": height > 5},
        **{"counts_of_ages_0_to_102": counts, "age": torch.tensor([20, 80])},
        "portrait": torch.rand(2, 3, 64, 64),
    }
    yield names
    assert names["histogram"].total == 3 * 2 * 32 * 32 - 2 * 32 * 8
    assert 0.7 < names["metres"].min() < names["metres"].max() < 10.0
    assert names["result"]["overall"]["count"] == (names["depth"] >= 0.7).sum()
    assert names["height_map"].shape == height.shape
    assert names["height_map"].min() >= 0
    assert names["years"].shape == (2, 1)
    assert -0.5 <= names["years"].min() <= names["years"].max() <= 102.5
    for parameter in names["network"].parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def lightning() -> Iterator[Names]:
    names = depths()
    before = names["network"].weight.clone()
    yield names
    assert (names["network"].weight != before).any()
    assert names["model"].loss.noise_sigma != 1
    assert "loss.noise.log_sigma" in names["model"].state_dict()
    assert all(0.7 < maps.min() <= maps.max() < 10.0 for maps in names["metres"])


def hugging_face() -> Iterator[Names]:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        **{"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28},
        **{"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False, "patch_size": 14},
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        **{"reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8]},
        **{"fusion_hidden_size": 8, "head_hidden_size": 8},
        **{"depth_estimation_type": "metric", "max_depth": 20},
    )
    torch.manual_seed(0)
    pixels, depth = torch.rand(4, 3, 28, 28), 0.7 + 19 * torch.rand(4, 28, 28) ** 3
    depth[:, :3] = 0
    samples = [{"pixel_values": pixels[i], "labels": depth[i]} for i in range(4)]
    histogram = Histogram.regular(0.7, 20.0, 0.1)
    names = {"model": DepthAnythingForDepthEstimation(config), "samples": samples}
    names |= {"histogram": histogram.update(depth[depth > 0]), "pixel_values": pixels}
    before = {name: one.clone() for name, one in names["model"].named_parameters()}
    yield names
    changed = dict(names["model"].named_parameters())
    assert (changed["head.conv1.weight"] != before["head.conv1.weight"]).any()
    assert names["model"].balanced.noise_sigma != 1
    assert names["metres"].shape == (4, 28, 28)
    assert names["metres"].min() > 0.7


def tables() -> Iterator[Names]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 8))
    prices = np.exp(rows[:, 0] + 0.5 * rows[:, 1] + rng.normal(0, 0.3, 3000)).clip(0.1, 20)
    names: Names = {"torch": torch, "nn": nn, "BMCLoss": BMCLoss}
    for name, start, end in (("train", 0, 2000), ("val", 2000, 2500), ("test", 2500, 3000)):
        names |= {f"rows_{name}": rows[start:end], f"prices_{name}": prices[start:end]}
    names |= {"rows": torch.rand(16, 8), "price": torch.rand(16) * 100}
    yield names
    readout = names["readout"]
    assert readout["balanced"]["few"]["rmse"] < readout["plain"]["few"]["rmse"]
    assert names["balanced"].shape == (16,)


def torchgeo() -> Iterator[Names]:
    height = torch.linspace(-1, 59, 32 * 32 * 2).reshape(2, 1, 32, 32)
    histogram = Histogram(np.arange(0, 61.0), 1000 * np.exp(-np.arange(60) / 8))
    names: Names = {"height_histogram": histogram}
    yield names
    task, batch = names["task"], {"image": torch.rand(2, 3, 32, 32), "mask": height}
    task.log = task.log_dict = lambda *_, **__: None
    task.training_step(batch, 0).backward()
    assert 0 <= task.predict_step(batch, 0).min() <= task.predict_step(batch, 0).max() <= 60


def ultralytics() -> Iterator[Names]:
    histogram: Histogram = depths()["histogram"]
    histogram.save("depths.json")
    names: Names = {}
    yield names
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DepthModel

    model = DepthModel("yolo26n-depth.yaml", ch=3, nc=1, verbose=False)
    model.args = get_cfg()
    trainer = object.__new__(names["BalancedDepthTrainer"])
    trainer.data = {"channels": 3, "nc": 1}
    made = trainer.get_model("yolo26n-depth.yaml", verbose=False)
    assert type(made.init_criterion()).__name__ == "BalancedDepthLoss"
    batch = {"img": torch.rand(2, 3, 64, 64), "depth": 0.6 + 9 * torch.rand(2, 64, 64) ** 2}
    losses, items = made.loss(batch, None)
    losses.sum().backward()
    assert set(items) == {"balanced", "gradient"}
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in made.parameters())


def balancing() -> Iterator[Names]:
    rng = np.random.default_rng(0)
    maps = [(0.8 + rng.gamma(2.0, 1.0, (20, 30))).clip(0, 9.9) for _ in range(30)]
    images = [(f"{i}", 2 + 0.5 * (depth - 2), depth) for i, depth in enumerate(maps)]
    names: Names = {
        **{"JointHistogram": JointHistogram, "choose_balance": choose_balance, "torch": torch},
        **{"BalanceMap": BalanceMap, "bins": DepthBins.nyud2()},
        **{"calibration_images": images, "other_prediction": images[0][1]},
    }
    yield names
    assert 0.5 < names["low"] < names["gain"] < names["high"] < 1
    assert np.abs(names["metres"] - maps[0]).mean() < 0.1
    lower, upper = names["lower"].numpy(), names["upper"].numpy()
    assert ((lower <= names["metres"]) & (names["metres"] <= upper)).all()


def a_balance() -> Iterator[Names]:
    BalanceMap(Histogram([0.7, 2.0, 10.0], [9.0, 1.0]), 1.0, (0.7, 10.0)).save("balance.json")
    names = {"prediction": np.array([2.0, 3.0])}
    yield names
    assert (names["metres"] > names["prediction"]).all()


def anybodys_depth() -> Iterator[Names]:
    data = RoomsDataModule(n_train=4, n_val=0, n_test=2, size=(24, 32), num_workers=0)
    yield {"data": data, "predict": lambda image: image.mean(2) / 32}
    assert Path("results/mine/metrics.json").is_file()


def a_run() -> Iterator[Names]:
    assert command("train", "--out", "runs/rooms-gai", *TINY_ROOMS) == 0
    cv2.imwrite("photo.jpg", np.full((72, 96, 3), 128, np.uint8))
    names: Names = {}
    yield names
    assert names["depth"].shape[-2:] == (72, 96)
    assert 0.7 < names["depth"].min() <= names["depth"].max() < 10


def an_export() -> Iterator[Names]:
    reader = a_run()
    names = next(reader)
    assert command("export", "runs/rooms-gai", "--format", "onnx", "--size", 72, 96) == 0
    yield names
    next(reader, None)


# what a page leaves to its reader, and then what its code must have made of that
GIVEN: dict[str, Callable[[], Iterator[Names]]] = {
    "README.md": readme,
    "docs/evaluation.md": anybodys_depth,
    "docs/howto/balance.md": a_balance,
    "docs/howto/export.md": an_export,
    "docs/howto/predict.md": a_run,
    "docs/losses.md": balancing,
    "docs/users/hf_trainer.md": hugging_face,
    "docs/users/lightning.md": lightning,
    "docs/users/pytorch.md": plain_pytorch,
    "docs/users/tables.md": tables,
    "docs/users/torchgeo.md": torchgeo,
    "docs/users/ultralytics.md": ultralytics,
}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
@pytest.mark.filterwarnings("ignore:BMCLoss met a batch", "ignore:.*num_workers")
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    """All of it in one go, as somebody types it who has what the page takes for granted."""
    write_files(page, tmp_path, monkeypatch)
    wanted = [block for block in blocks(page, "python") if not block.title.startswith("not run: ")]
    for package in filter(None, (needed(block.title) for block in wanted)):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    reader = GIVEN[page]() if page in GIVEN else iter([{}])
    names = next(reader)
    capsys.readouterr()
    names.setdefault("torch", torch)
    for block in wanted:
        if block.file and not needed(block.title):
            importlib.import_module(block.file.removesuffix(".py"))
        else:
            exec(compile(block.code, page, "exec"), names)
    assert next(reader, None) is None
    shown, printed = "".join(block.code for block in blocks(page, "text")), capsys.readouterr().out
    for line, other in zip(shown.splitlines(), printed.splitlines(), strict=False):
        for word, found in zip(line.split(), other.split(), strict=True):
            close = pytest.approx(float(word), abs=0.03) if "." in word else word
            assert close == (float(found) if "." in word else found)


@pytest.mark.parametrize(
    ("page", "settings"),
    [
        ("docs/howto/own_loss.md", TINY_ROOMS),
        ("docs/howto/own_data_set.md", ["--data.number=8", "--trainer.max_epochs=1"]),
    ],
)
def test_what_a_reader_writes_trains_and_predicts(page, settings, tmp_path, monkeypatch, capsys):
    """That of own_task.md is tests/test_fourth_application.py."""
    write_files(page, tmp_path, monkeypatch)
    cv2.imwrite("roofs.png", np.full((24, 32, 3), 128, np.uint8))
    for line in command_lines(page):
        more = ["--device", "cpu"]
        if line[0] == "train":
            more = ["--trainer.accelerator=cpu", *settings]
        assert command(*line, *more) == 0, capsys.readouterr().err
    (result,) = tmp_path.glob("runs/*/metrics.json")
    assert json.loads(result.read_text())["overall"]["count"] > 0


# ---- the site ----


def test_the_pictures_of_the_ideas_are_drawn(tmp_path):
    assert tool("show_concepts.py", "--out", tmp_path) == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert drawn == set(re.findall(r"pictures/(\w+\.svg)", PAGES["docs/concepts.md"]))
    made = runpy.run_path(str(TOOLS / "show_concepts.py"))
    middle = np.abs(made["DEPTHS"] - 6).argmin()
    plain, balanced = (made["moments"](preds)[0] for preds in (made["PLAIN"], made["balanced"]()))
    assert plain[middle] < -0.5  # what the text says of the pictures
    assert abs(balanced[middle]) < 0.05


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(package, reason="needs pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    built = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr  # a warning is a failure
    return folder


def test_the_site_has_every_page_table_and_docstring(site):
    import depthbal.losses

    text = (site / "reference" / "depthbal.losses.html").read_text(encoding="utf-8")
    assert all(name in text for name in depthbal.losses.__all__ if name != "LOSSES")
    text = (site / "commands.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in text for name in COMMANDS)
    text = (site / "benchmarks.html").read_text(encoding="utf-8")
    for path in (ROOT / "tools" / "results").glob("*.md"):
        assert path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") in text
    assert not re.search(r'(src|href)="https?://[^"]+\.(js|css|woff2?)"', text)


def test_every_link_leads_to_a_page_and_its_anchor(site):
    """Also those of notebooks and generated pages, of which mkdocs checks not all."""
    text = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    del text[site / "404.html"]
    ids = {path: set(re.findall(r'\b(?:id|name)="?([^" >]+)', page)) for path, page in text.items()}
    dead = []
    for path, page in text.items():
        for link in re.findall(r'<a [^>]*?href="([^"]*)"', page):
            if re.match(r"[a-z]+:", link):
                continue
            there, _, anchor = unquote(html.unescape(link)).partition("#")
            target = (path.parent / there).resolve() if there else path
            known = ids.get(target, set())
            if not target.exists() or (anchor and anchor not in known and target in ids):
                dead.append((path.relative_to(site).as_posix(), link))
    assert not dead


def test_no_page_scrolls_sideways_or_asks_the_network_on_a_phone(site, tmp_path):
    require_browser()
    wrong = []
    with started_browser(tmp_path) as driver:
        phone = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        for page in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
            driver.get(page.as_uri())
            width, broken, asked = driver.execute_script(
                "return [document.scrollingElement.scrollWidth,"
                "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),"
                "performance.getEntriesByType('resource').map(r => r.name)"
                ".filter(n => n.startsWith('http'))]"
            )
            if width > 390 or broken or asked:
                wrong.append((page.name, width, broken, asked))
        complaints = [e for e in driver.get_log("browser") if e["level"] == "SEVERE"]
    assert not wrong
    assert not complaints
