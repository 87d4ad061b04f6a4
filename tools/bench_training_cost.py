#!/usr/bin/env python
"""Measure what each loss costs a training: ``python tools/bench_training_cost.py --of age``.

Time of an iteration (forward, loss, backward, Adam) and peak memory of every loss on the same model
and batch, as in table 4 of the supplement of Balanced MSE. The losses take turns, so that whatever
else the machine does meets all of them alike. One page as Markdown and JSON.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measuring import machine, peak_mib, result_paths, wait, write_results

from depthbal.adapters.age import AgeRegressor
from depthbal.errors import DepthbalError
from depthbal.losses import (
    BMCLoss,
    BNILoss,
    FocalRLoss,
    GAILoss,
    L1Loss,
    MSELoss,
    RegressionLoss,
    ReweightedLoss,
)
from depthbal.models import ResNetMFF, SmpDepth
from depthbal.priors import GaussianMixture, Histogram
from depthbal.training.feature_layer import find_layer
from depthbal.training.tool import run_tool


class Setting(NamedTuple):
    """A model, its input, and its labels."""

    name: str
    network: Callable[[], nn.Module]
    batch: int
    pixels: tuple[int, int]
    labels: tuple[float, float, float]  # range, and width of a bin
    sigma: float
    components: tuple[int, ...]
    error: str


DEPTH = {"labels": (0.7, 10.0, 0.1), "sigma": 1.0, "components": (2, 16, 512), "error": "squared"}
AGE = {"labels": (-0.5, 101.5, 1.0), "sigma": 10.0, "components": (2, 512), "error": "absolute"}
DECODER = {"decoder_channels": [128, 64, 32, 16, 16]}
SETTINGS: dict[tuple[str, str], Setting] = {
    ("depth", "cuda"): Setting("ResNetMFF, published", ResNetMFF, 32, (228, 304), **DEPTH),  # type: ignore[arg-type]
    ("depth", "cpu"): Setting(
        "U-Net with ResNet-18 of configs/rooms",
        lambda: SmpDepth("unet", "resnet18", arch_args=DECODER),
        16,
        (72, 96),
        **DEPTH,  # type: ignore[arg-type]
    ),
    ("age", "cuda"): Setting("ResNet-50, published", AgeRegressor, 256, (224, 224), **AGE),  # type: ignore[arg-type]
    ("age", "cpu"): Setting(
        "test_resnet of configs/age/drawn",
        lambda: AgeRegressor("test_resnet", library="timm"),
        128,
        (48, 48),
        **AGE,  # type: ignore[arg-type]
    ),
}


def losses(setting: Setting) -> dict[str, RegressionLoss]:
    """Return every loss by its name in the table, the plain one first."""
    low, high, width = setting.labels
    ends: Any = {"label_range": (low, high)}
    error: Any = {"error": setting.error}
    histogram = Histogram.regular(low, high, width).update(skewed_labels(200_000, setting))
    balanced: Any = {**ends, "init_noise_sigma": setting.sigma, "noise": "learned"}
    plain = MSELoss(**ends) if setting.error == "squared" else L1Loss(**ends)
    return {
        f"{type(plain).__name__}, to compare with": plain,
        "inverse frequency": ReweightedLoss(histogram, **error, **ends),
        "LDS": ReweightedLoss(histogram, smoothing="gaussian", **error, **ends),
        "Focal-R": FocalRLoss(**error, **ends),
        **{
            f"GAI, K = {number}": GAILoss(mixture(number, setting), **balanced)
            for number in setting.components
        },
        "BNI": BNILoss(GaussianMixture.from_histogram(histogram), **balanced),
        "BMC": BMCLoss(**balanced),
    }


def mixture(number: int, setting: Setting) -> GaussianMixture:
    """Return a mixture of so many components over the label range: their number is what costs."""
    low, high, _ = setting.labels
    means = torch.linspace(low, high, number + 2)[1:-1]
    spread = ((high - low) / (2 * number)) ** 2
    return GaussianMixture([1 / number] * number, means.tolist(), [spread] * number)


def skewed_labels(count: int, setting: Setting) -> Tensor:
    """Return labels of which most lie in the lower third of the range."""
    low, high, width = setting.labels
    generator = torch.Generator().manual_seed(0)
    share = torch.randn(count, generator=generator).mul(0.5).exp() / 6
    labels = (low + (high - low) * share).clamp(low, high - width / 2)
    return labels.round() if width == 1.0 else labels


def make_step(
    setting: Setting, loss: RegressionLoss, trained: str, device: str
) -> tuple[Callable[[], None], float]:
    """Return a training step, and the MiB of all that stays between two steps."""
    torch.manual_seed(0)
    network = setting.network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss.to(device)
    if trained == "head":
        last = find_layer(network)
        network.requires_grad_(False).eval()
        last.requires_grad_(True)
    parameters = [p for m in (network, loss) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=device != "cpu")
    images = torch.randn(setting.batch, 3, *setting.pixels).to(
        device, memory_format=torch.channels_last
    )
    with torch.no_grad():
        shape = network(images).shape
    target = skewed_labels(shape.numel(), setting).reshape(shape).to(device)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss(network(images), target))
        optimizer.step()

    kept = sum(value.nbytes for value in network.state_dict().values())
    kept += 2 * sum(parameter.nbytes for parameter in parameters)  # Adam's
    return step, kept / 2**20


def measure(setting: Setting, trained: str, device: str, repeats: int) -> list[dict[str, Any]]:
    """Return a row per loss."""
    names = list(losses(setting))
    steps = {n: make_step(setting, loss, trained, device) for n, loss in losses(setting).items()}
    peaks = {name: peak_mib(step, device) + kept for name, (step, kept) in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, (step, _) in steps.items():
            wait(device)
            started = time.perf_counter()
            step()
            wait(device)
            times[name].append(time.perf_counter() - started)
    rows = []
    for name in names:
        best, median = min(times[name]), sorted(times[name])[repeats // 2]
        row = {"loss": name, "best_s": best, "median_s": median, "peak_mib": peaks[name]}
        row |= {"times_plain": best / min(times[names[0]])}
        row |= {"memory_times_plain": peaks[name] / peaks[names[0]]}
        rows.append(row)
        print(f"{name}: {1000 * best:.1f} ms, {peaks[name]:.0f} MiB", flush=True)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """Return the results as one page."""
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = [f"# Cost of an iteration, {result['of']}", "", where, ""]
    page += [
        f"{result['network']}, batch {result['batch']} of 3 x {result['pixels'][0]} x "
        f"{result['pixels'][1]}, Adam, {result['trained']} trained; best of {result['repeats']} "
        "turns. Memory: parameters, Adam's state and the peak of a step.",
        "",
        "| loss | s / iteration | median | x plain | peak MiB | x plain |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        cells = [row["loss"], f"{row['best_s']:.4f}", f"{row['median_s']:.4f}"]
        cells += [f"{row['times_plain']:.3f}", f"{row['peak_mib']:.1f}"]
        cells.append(f"{row['memory_times_plain']:.3f}")
        page.append(f"| {' | '.join(cells)} |")
    return "\n".join(page) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure every loss and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    here = Path(__file__).resolve().parent
    parser.add_argument("--of", choices=["depth", "age"], default="depth")
    parser.add_argument("--trained", choices=["all", "head"], help="default: age head, depth all")
    parser.add_argument("--out", type=Path, default=here / "results", help="folder of the tables")
    parser.add_argument("--overwrite", action="store_true", help="replace tables of this name")
    parser.add_argument("--batch-size", type=int, help="default: the published one on a GPU")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where one is")
    options = parser.parse_args(arguments)
    available = torch.cuda.is_available()
    device = options.device or ("cuda" if available else "cpu")
    if device == "cuda" and not available:
        raise DepthbalError("there is no GPU on this machine; leave out --device cuda")
    if options.repeats < 1 or (options.batch_size or 1) < 1:
        raise DepthbalError("expected --repeats and --batch-size of at least 1")
    setting = SETTINGS[options.of, device]
    setting = setting._replace(batch=options.batch_size or setting.batch)
    trained = options.trained or ("head" if options.of == "age" else "all")
    paths = result_paths(options.out, f"cost_{options.of}_{device}", options.overwrite)
    rows = measure(setting, trained, device, options.repeats)
    result = {
        "machine": machine(),
        "of": options.of,
        "network": setting.name,
        "batch": setting.batch,
        "pixels": setting.pixels,
        "trained": {"all": "all layers", "head": "the last layer alone"}[trained],
        "repeats": options.repeats,
        "rows": rows,
    }
    write_results(paths, markdown(result), result)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
