"""Images per second of the degradation, against its composition from basicsr, one image at a time.

`python -m benchmarks.degradation [--device cuda]` measures both in the same run, on the same images: every
round degrades a batch with ours, then with basicsr's, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import describe_machine, synchronize, table
from rasr.degradation import RealESRGANDegradation
from tests.degradation.basicsr_recipe import BasicSRRecipe, seed_globals


def photographs(count: int, size: int, device: torch.device) -> Tensor:
    """Smooth shapes with texture (count, 3, size, size), with all 256 levels as in photographs."""
    generator = torch.Generator().manual_seed(0)
    shapes = F.interpolate(torch.rand(count, 3, 16, 16, generator=generator), size=size, mode="bicubic")
    texture = torch.rand(count, 3, size, size, generator=generator) - 0.5
    return ((shapes + 0.2 * texture).clamp(0, 1) * 255).round().div(255).to(device)


def timed(function: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def measure(preset: str, gt: Tensor, rounds: int) -> tuple[float, float]:
    """Images per second of ours and of basicsr's composition; every round draws anew."""
    device = gt.device
    degradation = RealESRGANDegradation(preset)
    recipe = BasicSRRecipe().to(device)

    def ours(number: int) -> None:
        degradation(gt, seeds=torch.arange(len(gt)) + number * len(gt))

    def theirs() -> None:
        for image in gt.split(1):
            recipe(recipe.usm_sharpener(image) if preset == "realesrgan" else image)

    seed_globals(0)
    ours(rounds), theirs()
    times = [(timed(lambda n=n: ours(n), device), timed(theirs, device)) for n in range(rounds)]
    return tuple(len(gt) / statistics.median(column) for column in zip(*times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=6, help="images per batch")
    parser.add_argument("--rounds", type=int, default=5, help="timed batches per preset")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads; PyTorch's default if absent")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    gt = photographs(args.batch, args.size, device)
    rows = []
    for preset in ("osediff", "realesrgan"):
        ours, theirs = measure(preset, gt, args.rounds)
        rows.append([preset, ours, theirs, ours / theirs, 1000 * args.batch / ours])
    print(describe_machine(device, ("basicsr", "scipy")))
    print(f"{args.size}x{args.size}, batch {args.batch}, median of {args.rounds} batches\n")
    header = ["preset", "ours images/s", "basicsr images/s", "ours / basicsr", f"ours ms per {args.batch}"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
