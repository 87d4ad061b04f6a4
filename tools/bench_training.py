#!/usr/bin/env python
"""Measure training the published network: ``python tools/bench_training.py``.

One training step (forward, loss, backward, Adam) in every form in the same run: enlarged as
published or folded, float32 or bfloat16, compiled or not. Then one epoch of the loader alone, and
the share of its time that the fastest step waits for data. One page as Markdown and JSON.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_loader import write_rooms
from measuring import OPEN, machine, peak_mib, result_paths, seconds, wait, write_results

from depthbal.commands import run
from depthbal.data import NYUD2DataModule
from depthbal.data.packing import pack
from depthbal.errors import DepthbalError
from depthbal.losses import MSELoss
from depthbal.models import ResNetMFF

SIZE = (228, 304)
MIN_DEPTH = 0.7


class Form(NamedTuple):
    """A row of the table: how the network is computed."""

    name: str
    folded: bool = True
    low: bool = False  # bfloat16 autocast
    channels_last: bool = True
    compiled: bool = False


PUBLISHED = Form("as published, float32", folded=False, channels_last=False)
FORMS = [
    PUBLISHED,
    Form("as published, float32, channels_last", folded=False),
    Form("as published, bfloat16, channels_last", folded=False, low=True),
    Form("folded, float32, channels_last"),
    Form("folded, bfloat16, channels_last", low=True),
    Form("folded, float32, channels_last, compiled", compiled=True),
    Form("folded, bfloat16, channels_last, compiled", low=True, compiled=True),
]

Step = Callable[[dict[str, Tensor]], None]


def make_step(form: Form, device: str, seed: int) -> tuple[Step, float]:
    """Return a training step on a batch, and the MiB of all that stays between two steps."""
    torch.manual_seed(seed)
    model = ResNetMFF(folded=form.folded).to(device)
    layout = torch.channels_last if form.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    # fused where PyTorch fuses whatever the layout, as the trainer has it
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=device != "cpu")
    network: nn.Module = torch.compile(model) if form.compiled else model  # type: ignore[assignment]
    criterion = MSELoss()

    def step(batch: dict[str, Tensor]) -> None:
        images = batch["image"].to(device, non_blocking=True, memory_format=layout)
        target = batch["depth"].to(device, non_blocking=True)
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=form.low):
            preds = network(images)
        criterion(preds, target, target >= MIN_DEPTH).backward()
        optimizer.step()

    kept = sum(value.nbytes for value in model.state_dict().values())
    adam = 2 * sum(parameter.nbytes for parameter in model.parameters())
    return step, (kept + adam) / 2**20


def random_batch(size: int, pixels: tuple[int, int], seed: int) -> dict[str, Tensor]:
    """Return images and depths of the published shapes, the depths at half the size."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (2 * -(-side // 4) for side in pixels)
    images = torch.randn(size, 3, *pixels, generator=generator)
    depth = 0.7 + 9 * torch.rand(size, 1, height, width, generator=generator)
    return {"image": images, "depth": depth}


def measure(form: Form, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one row: seconds of a step, images per second, peak memory, or why there is none."""
    row: dict[str, Any] = {"device": device, "form": form.name, "batch": options.batch_size}
    batch = random_batch(options.batch_size, options.size, options.seed)
    batch = {name: value.to(device) for name, value in batch.items()}
    step, kept = make_step(form, device, options.seed)
    try:
        started = time.perf_counter()
        step(batch)
        wait(device)
        first = time.perf_counter() - started
        times = seconds(lambda: step(batch), options.repeats, device)
        memory = peak_mib(lambda: step(batch), device) + kept
    except (RuntimeError, torch.cuda.OutOfMemoryError) as error:  # no compiler, no memory
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return row | {"skipped": f"{type(error).__name__}: {reason[:80]}"}
    finally:
        torch.compiler.reset()
    row |= {"first_s": first, "best_s": times[0], "median_s": times[len(times) // 2]}
    row |= {"worst_s": times[-1], "runs": len(times), "peak_gib": memory / 1024}
    return row | {"images_per_s": options.batch_size / times[0]}


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Compare every row with the published form of the same device."""
    best = {row["device"]: row for row in rows if row["form"] == PUBLISHED.name}
    for row in rows:
        twin = best.get(row["device"], {})
        if "best_s" in row and "best_s" in twin:
            row["times_published"] = twin["best_s"] / row["best_s"]
            row["share_of_memory"] = row["peak_gib"] / twin["peak_gib"]


def epoch(module: NYUD2DataModule, step: Step | None, device: str) -> dict[str, float]:
    """Run an epoch; return its images per second and the share of its time spent on waiting."""
    waited, count = 0.0, 0
    started = mark = time.perf_counter()
    for batch in module.train_dataloader():
        waited += time.perf_counter() - mark
        count += len(batch["image"])
        if step is not None:
            step(batch)
            wait(device)
        mark = time.perf_counter()
    return {"images_per_s": count / (mark - started), "waiting": waited / (mark - started)}


def measure_loader(device: str, options: argparse.Namespace, fastest: Form) -> dict[str, Any]:
    """Return the speed of the loader alone and under the fastest form's steps."""
    with tempfile.TemporaryDirectory() as folder:
        root = options.root
        if root is None:
            write_rooms(Path(folder) / "files", options.images)
            root = Path(folder) / "packed.h5"
            pack(Path(folder) / "files", root)
        module = NYUD2DataModule(
            root,
            batch_size=options.batch_size,
            num_workers=options.workers,
            val_fraction=0.0,
            crop_size=options.size,
            depth_size=tuple(2 * -(-side // 4) for side in options.size),  # type: ignore[arg-type]
        )
        module.setup("fit")
        step, _ = make_step(fastest, device, options.seed)
        step(next(iter(module.train_dataloader())))  # warm, and compiled
        alone, fed = epoch(module, None, device), epoch(module, step, device)
        images, workers = len(module.train_set or ()), module.num_workers
    return {
        "device": device,
        "source": "rendered rooms, packed" if options.root is None else str(options.root),
        "images": images,
        "workers": workers,
        "loader_images_per_s": alone["images_per_s"],
        "form": fastest.name,
        "training_images_per_s": fed["images_per_s"],
        "waiting_for_data": fed["waiting"],
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the results as one page."""
    setting = result["setting"]
    page = ["# Training the published network", ""]
    page += [", ".join(f"{key} {value}" for key, value in result["machine"].items()), ""]
    page += [
        f"One step: forward, masked MSE, backward, Adam; images {setting['size'][0]} x "
        f"{setting['size'][1]}. Memory: weights, gradients, Adam's state and the largest sum of "
        "everything else held at once.",
        "",
        "| device | batch | form | images/s | best s | median s | peak GiB | x published |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in result["steps"]:
        cells = [row["device"], str(row["batch"]), row["form"]]
        if "skipped" in row:
            cells += [row["skipped"], "", "", "", ""]
        else:
            cells += [f"{row['images_per_s']:.3g}", f"{row['best_s']:.3f}"]
            cells += [f"{row['median_s']:.3f}", f"{row['peak_gib']:.2f}"]
            cells += [f"{row['times_published']:.1f}" if "times_published" in row else ""]
        page.append(f"| {' | '.join(cells)} |")
    page += [
        "",
        "One epoch of decoding and augmenting alone, then with the step of the form named:",
        "",
        "| device | source | images | processes | loader images/s | form | training images/s | "
        "waiting for data |",
        "|---|---|--:|--:|--:|---|--:|--:|",
    ]
    for row in result["loaders"]:
        cells = [row["device"], row["source"], str(row["images"]), str(row["workers"])]
        cells += [f"{row['loader_images_per_s']:.0f}", row["form"]]
        cells += [f"{row['training_images_per_s']:.3g}", f"{row['waiting_for_data']:.1%}"]
        page.append(f"| {' | '.join(cells)} |")
    return "\n".join(page) + "\n"


def chosen_forms(device: str, options: argparse.Namespace) -> list[Form]:
    """Return the rows that the options ask for."""
    if options.quick:
        return [PUBLISHED, FORMS[4]]
    compiled = [form for form in FORMS if form.compiled and options.compile is not False]
    if device == "cpu" and options.compile is None:
        compiled = compiled[-1:]
    return [form for form in FORMS if not form.compiled] + compiled


def bench(device: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure all rows of a device, printing each, then the loader."""
    rows, forms = [], chosen_forms(device, options)
    for form in forms:
        row = measure(form, device, options)
        outcome = row.get("skipped") or f"{row['best_s']:.3f} s, {row['peak_gib']:.2f} GiB"
        print(f"{device} {form.name:44} {outcome}", flush=True)
        rows.append(row)
    speed = {row["form"]: row.get("images_per_s", 0.0) for row in rows}
    fastest = max(forms, key=lambda form: speed[form.name])
    return rows, measure_loader(device, options, fastest)


def main(arguments: Sequence[str]) -> None:
    """Measure every form of the training step and the loader, and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here / "results", help="folder of the tables")
    parser.add_argument("--overwrite", action="store_true", help="replace tables of this name")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None, help="default: GPU, CPU")
    parser.add_argument("--batch-size", type=int, default=None, help="default: GPU 32, CPU 2")
    parser.add_argument("--repeats", type=int, default=10, help="steps per row, at most")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, help="NYUD2-DIR folder or packed file; default: rooms")
    parser.add_argument("--images", type=int, default=None, help="rooms to render for the loader")
    parser.add_argument("--workers", type=int, default=-1, help="loader processes; -1: one per CPU")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compiled rows; default: all on a GPU, one on a CPU, where each takes minutes",
    )
    parser.add_argument("--quick", action="store_true", help="small pictures, to try the tool")
    options = parser.parse_args(arguments)
    gpu = torch.cuda.is_available()
    device = options.device or ("cuda" if gpu else "cpu")
    if device == "cuda" and not gpu:
        raise DepthbalError("there is no GPU on this machine; leave out --device cuda")
    options.size = (52, 76) if options.quick else SIZE
    options.batch_size = options.batch_size or (32 if device == "cuda" else 2)
    options.images = options.images or options.batch_size * (2 if options.quick else 10)
    torch.set_num_threads(options.threads)
    paths = result_paths(options.out, f"training_{device}", options.overwrite)
    rows, loader = bench(device, options)
    add_ratios(rows)
    if not gpu:
        rows += [
            {"device": "cuda", "batch": 32, "form": form.name, "skipped": OPEN}
            for form in chosen_forms("cuda", options)
        ]
    setting = {"size": list(options.size), "seed": options.seed, "repeats": options.repeats}
    result = {"machine": machine(), "setting": setting, "steps": rows, "loaders": [loader]}
    write_results(paths, markdown(result), result)


if __name__ == "__main__":
    raise SystemExit(run(main))
