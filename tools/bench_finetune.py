#!/usr/bin/env python
"""Measure a fine-tuning step of HFDepth: ``python tools/bench_finetune.py``.

Forward, loss and backward of the smallest published Depth Anything (random weights, real sizes),
as `DepthTask` does them and written by hand around transformers, in turns in the same run; and the
share of the loss.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measuring import machine, wait

from depthbal.commands import run
from depthbal.losses import GAILoss
from depthbal.models import HFDepth
from depthbal.priors import Histogram
from depthbal.training import DepthTask

PROCESSOR = {
    "image_processor_type": "DPTImageProcessor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": {"height": 518, "width": 518},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
}


def main(arguments: Sequence[str]) -> None:
    """Print the medians of both forms, their ratio, and the share of the loss."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    from transformers import AutoModelForDepthEstimation, DepthAnythingConfig

    torch.manual_seed(0)
    config = DepthAnythingConfig(depth_estimation_type="metric", max_depth=20)  # that of Small
    plain = AutoModelForDepthEstimation.from_config(config).to(options.device).train()
    ours = HFDepth(config=config.to_dict(), processor=PROCESSOR)
    ours.network.load_state_dict(plain.state_dict())
    histogram = Histogram.regular(0.7, 10.0, 0.1)
    histogram.update(0.7 + 9.3 * torch.rand(10**6) ** 2)
    loss = GAILoss(noise="learned", label_range=(0.7, 10.0))
    loss.set_prior(histogram)
    task = DepthTask(ours, loss).to(options.device).train()
    shape = options.batch_size, 1, options.size, options.size
    batch = {
        "image": torch.randn(shape[0], 3, *shape[2:], device=options.device),
        "depth": 0.7 + 9.3 * torch.rand(shape, device=options.device),
    }
    preds = (10 * torch.rand(shape, device=options.device)).requires_grad_()

    def by_task() -> None:
        task.zero_grad()
        value = task.training_loss(task.predict(batch), batch)
        value.backward()  # type: ignore[no-untyped-call]

    def by_hand() -> None:
        plain.zero_grad()
        depth = plain(pixel_values=batch["image"]).predicted_depth.unsqueeze(1)
        value: torch.Tensor = loss(depth, batch["depth"], batch["depth"] >= 0.7)
        value.backward()  # type: ignore[no-untyped-call]

    def loss_alone() -> None:
        value: torch.Tensor = loss(preds, batch["depth"], batch["depth"] >= 0.7)
        value.backward()  # type: ignore[no-untyped-call]

    forms = by_task, by_hand, loss_alone
    # processor time on a CPU: what else the machine does has less of a part in it
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    times: dict[Callable[[], None], list[float]] = {form: [] for form in forms}
    for _ in range(options.repeats + 1):  # the first is not counted
        for form in forms:
            wait(options.device)
            start = clock()
            form()
            wait(options.device)
            times[form].append(clock() - start)
    ours_s, hand_s, loss_s = (median(times[form][1:]) for form in forms)
    pairs = zip(times[by_task][1:], times[by_hand][1:], strict=True)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print(
        f"batch {options.batch_size} of {options.size} x {options.size}, {options.repeats} steps: "
        f"DepthTask {ours_s:.3f} s, by hand {hand_s:.3f} s, median ratio "
        f"{median(one / other for one, other in pairs):.3f}; GAI {1000 * loss_s:.1f} ms, "
        f"{loss_s / ours_s:.2%} of a step"
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
