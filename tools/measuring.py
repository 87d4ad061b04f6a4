"""What the benchmarks share: times, peak memory, and the machine they were measured on."""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from depthbal.errors import DepthbalError

OPEN = "open: no GPU on this machine"

SECONDS_PER_ROW = 6.0  # after which a function is timed no more often, but at least three times


def wait(device: str) -> None:
    """Wait until the device has done what was asked of it."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Return the times of several runs, sorted, after one that is not counted."""
    function()
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < SECONDS_PER_ROW):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)


def peak_mib(function: Callable[[], object], device: str) -> float:
    """Return the largest memory of all tensors made in a run and held at once, in MiB."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    events = recorded.profiler.kineto_results.experimental_event_tree()  # type: ignore[union-attr]
    changes = []
    while events:
        event = events.pop()
        events += event.children
        if event.name == "[memory]":
            changes.append((event.start_time_ns, event.extra_fields))
    held: dict[int, int] = {}  # by address: what was there before the run does not count when freed
    now = peak = 0
    for _, change in sorted(changes, key=itemgetter(0)):
        if change.alloc_size > 0:
            held[change.ptr] = change.alloc_size
            now += change.alloc_size
            peak = max(peak, now)
        else:
            now -= held.pop(change.ptr, 0)
    return peak / 2**20


def machine() -> dict[str, str | int | None]:
    """Return where, when and with which versions something is measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor_name() -> str:
    """Return the processor's name as the system gives it."""
    described = Path("/proc/cpuinfo")
    for line in described.read_text().splitlines() if described.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def result_paths(folder: Path, name: str, overwrite: bool) -> tuple[Path, Path]:
    """Return the Markdown and the JSON file of a result.

    Raises:
        DepthbalError: One is there and is not to be overwritten.
    """
    paths = folder / f"{name}.md", folder / f"{name}.json"
    if any(path.exists() for path in paths) and not overwrite:
        raise DepthbalError(f"{paths[0]} exists; use --overwrite or another --out")
    return paths


def write_results(paths: tuple[Path, Path], page: str, result: dict[str, Any]) -> None:
    """Write a result as page and data, and say where it is."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    paths[0].write_text(page)
    paths[1].write_text(json.dumps(result, indent=1))
    print(f"Results: {paths[0]}")
