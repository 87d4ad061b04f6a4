"""What the benchmarks share: times, peak memory, and the machine they were measured on."""

import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

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
    """Return the largest memory of all tensors that a run holds at once, in MiB."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [e for e in events if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
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
