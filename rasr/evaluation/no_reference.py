"""A judge without ground truth, for fallbacks that choose between restorations."""

from __future__ import annotations

from torch import Tensor

from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.evaluation.metrics import METRICS
from rasr.evaluation.protocol import EvaluationProtocol
from rasr.evaluation.toolbox import open_metrics


class NoReferenceMetric:
    """A metric of `evaluate.py` that needs no ground truth, turned so that higher is better.

    Args:
        name: niqe, musiq, clipiqa or maniqa.
        device: where it runs.
    """

    def __init__(self, name: str, *, device: str = "auto") -> None:
        known = [metric for metric, info in METRICS.items() if not info.needs_gt]
        if name not in known:
            raise RasrError(f"fallback.metric.name={name} cannot judge alone; give one of {', '.join(known)}")
        self.device = resolve_device(device)
        metrics, unavailable = open_metrics([name], EvaluationProtocol(), self.device)
        if unavailable:
            raise RasrError(f"fallback.metric.name={name} is not available: {unavailable[name]}")
        self.measure = metrics[name].measure
        self.sign = -1 if METRICS[name].lower_better else 1

    def __call__(self, image: Tensor) -> float:
        """(3, H, W) in [0, 1] -> quality."""
        return self.sign * float(self.measure(image[None].to(self.device), None))
