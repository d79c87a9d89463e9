"""Seconds per image and peak memory of a net, 128x128 -> 512x512 on the CPU, in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import seconds
from rasr.inference import Restorer
from rasr.models import load_rasr_net

SIDE, THREADS, REPEATS = 128, 2, 5


def measure_speed(weights: str | Path) -> dict[str, float]:
    """Run this file in a fresh process, so that the peak is that of the restoration alone."""
    command = [sys.executable, "-m", "benchmarks.quality_speed", str(weights)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="what load_rasr_net takes")
    weights = parser.parse_args().weights
    torch.set_num_threads(THREADS)
    figures: dict[str, float] = {"load_average": os.getloadavg()[0], "threads": torch.get_num_threads()}
    figures["imports_gb"] = peak_rss() / 1e9
    restorer = Restorer(load_rasr_net(weights), device="cpu")
    generator = torch.Generator().manual_seed(0)
    lq, ref = (torch.rand(3, side, side, generator=generator) for side in (SIDE, 4 * SIDE))
    cases = {"without": lambda: restorer.restore(lq)}
    if restorer.net.fusion is not None:
        cases["with"] = lambda: restorer.restore(lq, ref)
    for name, function in cases.items():
        value = seconds(function, repeats=REPEATS, warmup=1, device=torch.device("cpu"))
        figures |= {f"seconds_{name}": value, f"peak_gb_{name}": peak_rss() / 1e9}
    print(json.dumps(figures))


def peak_rss() -> int:
    """Bytes; not `ru_maxrss`, which a process takes over from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
