"""What a method costs: parameters, multiply-accumulates, seconds, memory; and what a retrieval costs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rasr.errors import RasrError
from rasr.evaluation.baselines import load_spandrel

_UNITS = {
    "trainable_parameters": "M",
    "parameters": "M",
    "gmacs": "GMACs",
    "seconds": "s",
    "memory": "GiB",
}


class ComplexityCase(Protocol):
    """A system whose cost is measured; `conf/options/complexity.yaml` has one entry per kind."""

    def measure(self, size: int, repeats: int, device: torch.device) -> dict[str, Any]:
        """Measure.

        Args:
            size: side of the square result, pixels.
            repeats: timed runs; the median counts, after one that is not timed.
            device: where it computes.

        Returns:
            Figures by name, see `measure_run`.
        """


class ModelComplexity:
    """RASR: with and without reference, and its retrieval.

    Args:
        weights: weight file, checkpoint, or the directory of a backbone, over which a fresh branch is put.
        backbone: replaces the one that the weights name.
        index: reference index whose retrieval is timed; None times none.
        scale: enlargement per side.
    """

    def __init__(
        self, weights: str, backbone: str | None = None, index: str | None = None, scale: int = 4
    ) -> None:
        self.weights = _given(weights)
        self.backbone = backbone
        self.index = index
        self.scale = scale

    def measure(self, size: int, repeats: int, device: torch.device) -> dict[str, Any]:
        """See `ComplexityCase`."""
        from rasr.inference import Restorer
        from rasr.models import build_rasr_net, load_rasr_net

        lq = _random_image(size // self.scale)
        retrieval = {}
        if self.index is not None:  # first: an index that is not there shows at once
            retrieval = {"retrieval": _measure_retrieval(self.index, lq, repeats, device)}
        net = load_rasr_net(self.weights, backbone=self.backbone, merge=False)
        if net.fusion is None:
            net = build_rasr_net(net.backbone)
        figures: dict[str, Any] = {
            "trainable_parameters": _trainable(net) / 1e6,
            "parameters": _total(net) / 1e6,
        }
        net.fusion.merge()  # as infer.py has it
        restorer = Restorer(net, scale=self.scale, tile_size=None, device=str(device))
        side = lq.shape[-1] * self.scale
        ref = _random_image(side)
        figures["without_reference"] = measure_run(lambda: restorer.restore(lq), repeats, device)
        figures["with_reference"] = measure_run(lambda: restorer.restore(lq, ref), repeats, device)
        figures |= figures["with_reference"]  # what a row of a table shows
        return figures | retrieval


class SpandrelComplexity:
    """A network that spandrel knows.

    Args:
        weights: its official weight file.
    """

    def __init__(self, weights: str) -> None:
        self.weights = _given(weights)
        if not Path(weights).is_file():
            raise RasrError(f"weights={weights}: no such file; give the weight file of a network")

    def measure(self, size: int, repeats: int, device: torch.device) -> dict[str, Any]:
        """See `ComplexityCase`."""
        model = load_spandrel(self.weights, device)
        lq = _random_image(size // model.scale)[None].to(device)

        def run() -> None:
            with torch.inference_mode():
                model(lq)

        count = _total(model.model) / 1e6  # its authors trained all of them
        return {"trainable_parameters": count, "parameters": count} | measure_run(run, repeats, device)


def measure_run(run: Callable[[], Any], repeats: int, device: torch.device) -> dict[str, float]:
    """Cost of one call.

    Returns:
        `gmacs` (1e9 multiply-accumulates of convolutions, products and attention), `seconds` (median) and
        `memory` (peak, GiB: of the GPU during the calls; on a CPU, of the whole process so far).
    """
    if repeats < 1:
        raise RasrError(f"repeats={repeats} times nothing; give 1 or more")
    with FlopCounterMode(display=False) as counter:  # the run that warms up
        run()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [_timed(run, device) for _ in range(repeats)]
    return {
        "gmacs": counter.get_total_flops() / 2 / 1e9,
        "seconds": statistics.median(seconds),
        "memory": _peak_memory(device) / 2**30,
    }


def format_complexity(figures: dict[str, Any], published: dict[str, float]) -> list[str]:
    """One line per figure to read, the paper's behind ours.

    Args:
        figures: of a `ComplexityCase`.
        published: {"with_reference.seconds": figure}, likewise for the others.
    """
    groups = {key: value for key, value in figures.items() if isinstance(value, dict)}
    shown = {key: figures[key] for key in ("trainable_parameters", "parameters")}
    shown |= {f"{group}.{key}": value for group, inner in groups.items() for key, value in inner.items()}
    if not groups:
        shown |= {key: figures[key] for key in ("gmacs", "seconds", "memory")}
    lines = []
    for key, value in shown.items():
        text = key.replace("_", " ").replace(".", ", ")
        paper = f"   (paper: {published[key]:g})" if key in published else ""
        lines.append(f"{text:28} {value:12.4f} {_UNITS[key.split('.')[-1]]}{paper}")
    return lines


def _measure_retrieval(index: str, lq: Tensor, repeats: int, device: torch.device) -> dict[str, float]:
    from rasr.retrieval import Retriever

    with Retriever.open(index, device=str(device)) as retriever:
        retriever.retrieve(lq)
        seconds = [_timed(lambda: retriever.retrieve(lq), device) for _ in range(repeats)]
    return {"seconds": statistics.median(seconds)}


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _given(weights: str | None) -> str:
    if weights is None:  # as conf/evaluate.yaml has it
        raise RasrError("missing key: weights; add weights=... to the command, see --help")
    return weights


def _random_image(side: int) -> Tensor:
    if side < 1:
        raise RasrError("size= is below the enlargement; give the side of the result in pixels, such as 512")
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))


def _trainable(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _total(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
