"""What every benchmark says and does: machine, versions, warm medians, peak memory, Markdown tables."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch


def describe_machine(device: torch.device | str = "cpu", packages: tuple[str, ...] = ()) -> str:
    """One paragraph: hardware, versions, and the command that was typed."""
    parts = [_cpu_name(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"]
    if torch.device(device).type == "cuda":
        parts.insert(0, torch.cuda.get_device_name(device))
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version(name)}" for name in ("torch", *packages)]
    command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()
    return f"{', '.join(parts)}; {', '.join(versions)}; `{command}`"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def seconds(function: Callable[[], object], *, repeats: int, warmup: int, device: torch.device) -> float:
    """Median seconds of a call, warm, the device's queue empty at both ends."""
    times = []
    for i in range(warmup + repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        if i >= warmup:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Starts measuring the peak memory of a CUDA device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | str:
    """Peak memory of a CUDA device since `reset_peak`; a process's own peak cannot be taken in parts."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else "-"


def table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; floats with three significant digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser(description: str, *, size: int, repeats: int) -> argparse.ArgumentParser:
    """The options that the benchmarks of the networks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default=None, help="float32 or bfloat16; bfloat16 on cuda by default")
    parser.add_argument("--size", type=int, default=size, help="side of the images in pixels")
    parser.add_argument("--repeats", type=int, default=repeats, help="timed calls per case; median reported")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks' blocks")
    parser.add_argument("--tiny", action="store_true", help="the small preset instead of SD-2.1's shapes")
    return parser


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    """The dtype asked for, else what the device is used with."""
    return getattr(torch, args.dtype or ("bfloat16" if args.device == "cuda" else "float32"))
