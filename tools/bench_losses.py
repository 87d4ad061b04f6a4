#!/usr/bin/env python
"""Measure every loss, forward and backward: ``python tools/bench_losses.py --out results``.

Time and memory of every loss against the published formulas and plain MSE in the same run, and each
loss as a share of a whole training step; one table as Markdown and JSON for every device.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measuring import OPEN, machine, peak_mib, result_paths, seconds, write_results

from depthbal.commands import run
from depthbal.errors import DepthbalError
from depthbal.losses import LOSSES, BinsLoss, BMCLoss, BNILoss, FocalRLoss, GAILoss
from depthbal.models import SmpDepth
from depthbal.priors import GaussianMixture, Histogram

SIZES = [4_096, 17_328, 554_496, 9_830_400]
SIGMA = 1.0
LABEL_RANGE = (0.7, 10.0)
BINS = 128  # of the losses of logits
FORMULA_TEMPORARIES = 6  # N x K matrices that the published formulas hold at once
STEP = "U-Net with ResNet-18 (SmpDepth of configs/rooms), AdamW, batch {0} of 3 x {1} x {2}"

Loss = Callable[[Tensor, Tensor], Tensor]


# A batch of the benchmark: 32 maps of 114 x 152.
PIXELS = 554_496


class Case(NamedTuple):
    """A row of the table: a loss, what it is compared with, and the matrix that it needs."""

    name: str
    loss: Loss
    twin: str | None = None  # the published formula
    columns: Callable[[int], int] = lambda labels: 0  # of its N x K matrix, if it makes one
    most: int | None = None  # labels, above which one run takes minutes
    of_logits: bool = False


def published_mixture(prior: GaussianMixture, device: str) -> Loss:
    """Return GAI and BNI as they are usually copied: one N x K matrix."""
    weights, means, variances = (
        part.to(device, torch.float32) for part in (prior.weights, prior.means, prior.variances)
    )
    sigma = torch.tensor(SIGMA, device=device)

    def loss(preds: Tensor, target: Tensor) -> Tensor:
        total = variances + sigma**2
        logits = weights.log() - 0.5 * total.log() - (preds[:, None] - means) ** 2 / (2 * total)
        data = (preds - target) ** 2 / (2 * sigma**2)
        return (data + sigma.log() + torch.logsumexp(logits, 1)).mean() * 2 * sigma**2

    return loss


def published_bmc(preds: Tensor, target: Tensor) -> Tensor:
    """Return BMC as published: a cross entropy over an N x N matrix."""
    logits = -((preds[:, None] - target) ** 2) / (2 * SIGMA**2)
    own = torch.arange(len(preds), device=preds.device)
    return nn.functional.cross_entropy(logits, own) * 2 * SIGMA**2


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return PyTorch's cross-entropy with the nearest of as many bins."""
    low, high = LABEL_RANGE
    nearest = ((target - low) / (high - low) * (BINS - 1)).round().long()
    return nn.functional.cross_entropy(logits, nearest)


def cases(device: str, seed: int) -> list[Case]:
    """Return all rows; a published formula comes before what is compared with it."""
    histogram = Histogram.regular(0.7, 10.0, 0.1).update(labels(500_000, seed)[1])
    mixture, bins = GaussianMixture.fit(histogram, 16), GaussianMixture.from_histogram(histogram)
    gai, bni, bmc = ("published " + name for name in ("GAI, K = 16", "BNI", "BMC"))
    entropy = f"torch cross_entropy, {BINS} logits"
    name, binned = f"BinsLoss, {BINS} bins", BinsLoss(n_bins=BINS, label_range=LABEL_RANGE)
    common: dict[str, Any] = {"init_noise_sigma": SIGMA, "label_range": LABEL_RANGE}
    plain = [cls() for cls in LOSSES.values() if cls not in (GAILoss, BNILoss, BMCLoss)]
    plain.append(FocalRLoss(error="squared"))
    rows = [Case("torch mse_loss", nn.functional.mse_loss)]
    rows += [Case(describe(loss), loss) for loss in plain]
    rows += [
        Case(gai, published_mixture(mixture, device), columns=lambda labels: 16),
        *(
            Case(f"GAILoss, K = 16, {noise} noise", GAILoss(mixture, noise=noise, **common), gai)
            for noise in ("fixed", "learned", "depth")
        ),
        Case(bni, published_mixture(bins, device), columns=lambda labels: len(bins.means)),
        Case(f"BNILoss, {len(bins.means)} bins", BNILoss(bins, **common), bni),
        Case("balanced L1 (BNILoss, laplace)", BNILoss(bins, family="laplace", **common)),
        Case("balanced Huber (BNILoss, huber)", BNILoss(bins, family="huber", **common)),
        Case("Student's t (BNILoss, student)", BNILoss(bins, family="student", **common)),
        Case(bmc, published_bmc, columns=lambda labels: labels),
        Case("BMCLoss", BMCLoss(**common), bmc),
        Case("BMCLoss, exact", BMCLoss(method="exact", **common), bmc, most=PIXELS),
        Case("balanced L1 (BMCLoss, laplace)", BMCLoss(family="laplace", **common)),
        Case("balanced Huber (BMCLoss, huber)", BMCLoss(family="huber", **common)),
        Case("Student's t (BMCLoss, student)", BMCLoss(family="student", **common)),
        Case(entropy, cross_entropy, None, lambda labels: BINS, of_logits=True),
        Case(name, binned, entropy, lambda labels: BINS, of_logits=True),
    ]
    for row in rows:
        if isinstance(row.loss, nn.Module):
            row.loss.to(device)
            if getattr(row.loss, "needs_prior", False):
                row.loss.set_prior(histogram)  # type: ignore[operator]
    return rows


def describe(loss: nn.Module) -> str:
    """Return a loss's name with what makes it special."""
    error = getattr(loss, "error", None)
    return type(loss).__name__ + (f", {error} error" if error else "")


def labels(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return flat predictions and targets with depths as skewed as those of rooms, metres."""
    generator = torch.Generator().manual_seed(seed)
    target = (torch.randn(count, generator=generator) * 0.5 + 0.95).exp().clamp(*LABEL_RANGE)
    return target * (1 + 0.2 * torch.randn(count, generator=generator)).clamp(min=0.01), target


def inputs(case: Case, count: int, device: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return what a loss takes: predictions or logits, and labels."""
    preds, target = labels(count, seed)
    if case.of_logits:
        preds = torch.randn(count, BINS, generator=torch.Generator().manual_seed(seed))
    return preds.to(device), target.to(device)


def forward_backward(loss: Loss, preds: Tensor, target: Tensor) -> Callable[[], None]:
    """Return a function that computes the loss and the gradients of all that learns."""
    leaf = preds.clone().requires_grad_()
    learned = list(loss.parameters()) if isinstance(loss, nn.Module) else []

    def run() -> None:
        for tensor in (leaf, *learned):
            tensor.grad = None
        loss(leaf, target).backward()  # type: ignore[no-untyped-call]

    return run


def measure(case: Case, size: int, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row: times in ms, memory in MiB, or why there are none."""
    row: dict[str, Any] = {"device": device, "labels": size, "loss": case.name}
    needed = FORMULA_TEMPORARIES * 4 * size * case.columns(size) / 2**30
    if needed > options.memory_gib:
        matrix = f"{FORMULA_TEMPORARIES} matrices of N x K"
        return row | {"skipped": f"{matrix} are {needed:,.0f} GiB, above {options.memory_gib:g}"}
    if case.most is not None and size > case.most:
        return row | {"skipped": f"minutes for more than {case.most:,} distinct labels"}
    run = forward_backward(case.loss, *inputs(case, size, device, options.seed))
    try:
        times = seconds(run, options.repeats, device)
    except ValueError as error:  # BMC says so where it would take hours
        return row | {"skipped": str(error).split(":")[0]}
    best, median, worst = (1000 * times[i] for i in (0, len(times) // 2, -1))
    row |= {"best_ms": best, "median_ms": median, "worst_ms": worst, "runs": len(times)}
    return row | {"peak_mib": peak_mib(run, device)}


def add_ratios(rows: list[dict[str, Any]], known: list[Case]) -> None:
    """Compare every row with its published formula of the same device and size."""
    twins = {case.name: case.twin for case in known}
    best = {(r["device"], r["labels"], r["loss"]): r.get("best_ms") for r in rows}
    for row in rows:
        twin = best.get((row["device"], row["labels"], twins.get(row["loss"])))
        if twin and "best_ms" in row:
            row["times_published"] = twin / row["best_ms"]


def training_step(device: str, options: argparse.Namespace, rows: list[Case]) -> dict[str, Any]:
    """Return the time of a step without its loss, and every loss's share of a whole step."""
    batch, height, width = (2, 32, 32) if options.quick else (16, 72, 96)
    torch.manual_seed(options.seed)
    decoder = {"decoder_channels": [128, 64, 32, 16, 16]}
    model = SmpDepth("unet", "resnet18", weights=None, arch_args=decoder).to(device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.rand(batch, 3, height, width, device=device)

    count = 0

    def step() -> None:
        nonlocal count
        optimizer.zero_grad()
        preds = model(images)
        count = preds.numel()
        preds.sum().backward()  # stands for a loss that costs nothing
        optimizer.step()

    bare = seconds(step, options.repeats, device)[0]
    shares: dict[str, float] = {}
    for case in rows:
        if FORMULA_TEMPORARIES * 4 * count * case.columns(count) / 2**30 <= options.memory_gib:
            run = forward_backward(case.loss, *inputs(case, count, device, options.seed))
            own = seconds(run, options.repeats, device)[0]
            shares[case.name] = own / (own + bare)
    name = STEP.format(batch, height, width)
    return {"network": name, "labels": count, "bare_ms": 1000 * bare, "shares": shares}


def bench(device: str, options: argparse.Namespace, known: list[Case]) -> Iterator[dict[str, Any]]:
    """Measure all rows of a device, printing each."""
    for size in options.sizes:
        for case in known:
            row = measure(case, size, device, options)
            outcome = row.get("skipped") or f"{row['best_ms']:.2f} ms, {row['peak_mib']:.0f} MiB"
            print(f"{device} {size:>9,} {case.name:34} {outcome}", flush=True)
            yield row


def markdown(result: dict[str, Any]) -> str:
    """Return the results as one page."""
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = ["# Losses, forward and backward", "", where, ""]
    page += ["| device | labels | loss | best ms | median | worst | peak MiB | x published |"]
    page += ["|---|--:|---|--:|--:|--:|--:|--:|"]
    for row in result["rows"]:
        cells = [row["device"], f"{row['labels']:,}", row["loss"]]
        if "skipped" in row:
            cells += [row["skipped"], "", "", "", ""]
        else:
            cells += [f"{row[key]:.2f}" for key in ("best_ms", "median_ms", "worst_ms")]
            ratio = row.get("times_published")
            cells += [f"{row['peak_mib']:.1f}", "" if ratio is None else f"{ratio:.1f}"]
        page.append(f"| {' | '.join(cells)} |")
    for device, step in result["steps"].items():
        page += ["", f"Share of a whole training step ({device}): {step['network']}; "]
        page[-1] += f"{step['labels']:,} labels; {step['bare_ms']:.0f} ms without a loss."
        page += [""]
        page += ["| loss | share of the step |", "|---|--:|"]
        page += [f"| {name} | {share:.2%} |" for name, share in step["shares"].items()]
    return "\n".join(page) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure every loss and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here / "results", help="folder of the tables")
    parser.add_argument("--overwrite", action="store_true", help="replace tables of this name")
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="numbers of labels")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-gib", type=float, default=10.0, help="for published formulas")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None, help="default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the tool")
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or ([300, 1000] if options.quick else SIZES)
    torch.set_num_threads(options.threads)
    available = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    devices = [options.device] if options.device else available
    if not set(devices) <= set(available):
        raise DepthbalError("there is no GPU on this machine; leave out --device cuda")
    paths = result_paths(options.out, f"losses_{'_'.join(devices)}", options.overwrite)
    rows, steps = [], {}
    for device in devices:
        known = cases(device, options.seed)
        rows += list(bench(device, options, known))
        steps[device] = training_step(device, options, known)
    add_ratios(rows, known)
    if "cuda" not in available:
        rows += [
            {"device": "cuda", "labels": n, "loss": "all", "skipped": OPEN} for n in options.sizes
        ]
    setting = {"seed": options.seed, "repeats": options.repeats, "sigma": SIGMA}
    result = {"machine": machine() | setting, "rows": rows, "steps": steps}
    write_results(paths, markdown(result), result)


if __name__ == "__main__":
    raise SystemExit(run(main))
