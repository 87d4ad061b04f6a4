#!/usr/bin/env python
"""Measure what each loss costs a training: ``python tools/bench_training_cost.py --of age``.

Time of an iteration (forward, loss, backward, Adam) and peak memory of every loss on the same model
and batch, as in table 4 of the supplement of Balanced MSE. The losses take turns, so that whatever
else the machine does meets all of them alike. One page as Markdown and JSON, and a picture.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measuring import machine, peak_mib, result_paths, wait, write_results

from depthbal.adapters.age import AgeRegressor
from depthbal.commands import run
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
from depthbal.training.fds import find_layer


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


def skewed_labels(count: int, setting: Setting, seed: int = 0) -> Tensor:
    """Return labels of which most lie in the lower third of the range."""
    low, high, width = setting.labels
    generator = torch.Generator().manual_seed(seed)
    share = torch.randn(count, generator=generator).mul(0.5).exp() / 6
    labels = (low + (high - low) * share).clamp(low, high - width / 2)
    return labels.round() if width == 1.0 else labels


def make_step(
    setting: Setting, loss: RegressionLoss, trained: str, device: str, seed: int
) -> tuple[Callable[[], None], float]:
    """Return a training step, and the MiB of all that stays between two steps."""
    torch.manual_seed(seed)
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
    target = skewed_labels(shape.numel(), setting, seed).reshape(shape).to(device)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss(network(images), target))
        optimizer.step()

    kept = sum(value.nbytes for value in network.state_dict().values())
    kept += 2 * sum(parameter.nbytes for parameter in parameters)  # Adam's
    return step, kept / 2**20


def measure(
    setting: Setting, trained: str, device: str, repeats: int, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a row per loss; the seeds make networks, images and labels."""
    times: dict[str, dict[int, list[float]]] = {name: {} for name in losses(setting)}
    peaks: dict[str, float] = {}
    for seed in seeds:
        for name, (turns, peak) in take_turns(setting, trained, device, repeats, seed).items():
            times[name][seed] = turns
            peaks[name] = max(peaks.get(name, 0.0), peak)
    return rows_of(times, peaks)


def take_turns(
    setting: Setting, trained: str, device: str, repeats: int, seed: int
) -> dict[str, tuple[list[float], float]]:
    """Return per loss the seconds of its turns and its peak memory in MiB."""
    steps = {
        n: make_step(setting, loss, trained, device, seed) for n, loss in losses(setting).items()
    }
    found: dict[str, tuple[list[float], float]] = {
        name: ([], peak_mib(step, device) + kept) for name, (step, kept) in steps.items()
    }
    for _ in range(repeats):
        for name, (step, _) in steps.items():
            wait(device)
            started = time.perf_counter()
            step()
            wait(device)
            found[name][0].append(time.perf_counter() - started)
    return found


def rows_of(
    times: dict[str, dict[int, list[float]]], peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """Compare every loss with the first: best turn against best turn, seed by seed."""
    plain = next(iter(times))
    rows = []
    for name, of_seed in times.items():
        every = [value for values in of_seed.values() for value in values]
        ratios = [min(of_seed[seed]) / min(times[plain][seed]) for seed in of_seed]
        rows.append(
            {
                "loss": name,
                "best_s": min(every),
                "median_s": statistics.median(every),
                "times_plain": statistics.median(ratios),
                "times_plain_of_seeds": ratios,
                "peak_mib": peaks[name],
                "memory_times_plain": peaks[name] / peaks[plain],
            }
        )
        print(f"{name}: {1000 * min(every):.1f} ms, {peaks[name]:.0f} MiB", flush=True)
    return rows


def draw(result: dict[str, Any], path: Path) -> None:
    """Write time and memory of every loss against the plain one as a picture."""
    rows = result["rows"][::-1]
    figure = Figure(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2, sharey=True)
    ratios = [row["times_plain"] for row in rows]
    seeds = [row["times_plain_of_seeds"] for row in rows]
    bars = [
        [middle - min(values) for middle, values in zip(ratios, seeds, strict=True)],
        [max(values) - middle for middle, values in zip(ratios, seeds, strict=True)],
    ]
    names = [row["loss"] for row in rows]
    time_axes.barh(names, ratios, xerr=bars, capsize=3)
    time_axes.set_xlabel("time of an iteration, times the plain loss's")
    memory_axes.barh(names, [row["memory_times_plain"] for row in rows], color="tab:grey")
    memory_axes.set_xlabel("peak memory, times the plain loss's")
    listed = ", ".join(map(str, result["seeds"]))
    figure.suptitle(f"{result['network']}; median and range of seeds {listed}", fontsize="medium")
    figure.savefig(path, dpi=150)


def markdown(result: dict[str, Any]) -> str:
    """Return the results as one page."""
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = [f"# Cost of an iteration, {result['of']}", "", where, ""]
    page += [
        f"{result['network']}, batch {result['batch']} of 3 x {result['pixels'][0]} x "
        f"{result['pixels'][1]}, Adam, {result['trained']} trained; seeds "
        f"{', '.join(map(str, result['seeds']))}, the best of {result['repeats']} turns each. x "
        "plain: median over the seeds, in brackets lowest and highest. Memory: parameters, Adam's "
        "state and the peak of a step.",
        "",
        "| loss | s / iteration | median | x plain | over seeds | peak MiB | x plain |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        cells = [row["loss"], f"{row['best_s']:.4f}", f"{row['median_s']:.4f}"]
        low, high = min(row["times_plain_of_seeds"]), max(row["times_plain_of_seeds"])
        cells += [f"{row['times_plain']:.3f}", f"[{low:.3f}, {high:.3f}]"]
        cells.append(f"{row['peak_mib']:.1f}")
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of networks and batches")
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
    rows = measure(setting, trained, device, options.repeats, options.seeds)
    result = {
        "machine": machine(),
        "of": options.of,
        "network": setting.name,
        "batch": setting.batch,
        "pixels": setting.pixels,
        "trained": {"all": "all layers", "head": "the last layer alone"}[trained],
        "repeats": options.repeats,
        "seeds": options.seeds,
        "rows": rows,
    }
    write_results(paths, markdown(result), result)
    draw(result, paths[0].with_suffix(".png"))


if __name__ == "__main__":
    raise SystemExit(run(main))
