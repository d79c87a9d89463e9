"""The conventions under which papers report metrics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rasr.errors import RasrError
from rasr.evaluation.metrics import COLORS, METRICS


@dataclass(frozen=True)
class EvaluationProtocol:
    """A convention under which figures may be compared."""

    name: str = "osediff"
    color: str = "ycbcr"
    """Of PSNR and SSIM: a key of `rasr.evaluation.metrics.COLORS`."""
    crop_border: int = 0
    """Pixels cut from each side of both images, for every metric but FID and KID."""
    variants: dict[str, str] = field(default_factory=dict)
    """{metric: name of its variant in pyiqa}, where that is not the metric's own."""

    def __post_init__(self) -> None:
        if self.color not in COLORS:
            raise RasrError(f"protocol.color={self.color!r} is unknown; give one of {', '.join(COLORS)}")
        if self.crop_border < 0:
            raise RasrError(f"protocol.crop_border={self.crop_border} is negative; give 0 or more pixels")
        _refuse_unknown(self.variants, "metric in protocol.variants")

    def variant(self, metric: str) -> str:
        """Name of the metric in pyiqa."""
        return self.variants.get(metric, metric)

    def describe(self) -> dict[str, object]:
        """All of it as plain values, with a digest: equal digests mean comparable figures."""
        values = asdict(self)
        meaning = {key: value for key, value in values.items() if key != "name"}
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:8]
        return {**values, "channel": COLORS[self.color], "digest": digest}


def check_metrics(names: Sequence[str], *, has_gt: bool) -> list[str]:
    """The names without repetition, or an error that names the unknown and the unmeasurable ones."""
    if not names:
        raise RasrError(f"unknown metric: none given; known are {', '.join(METRICS)}")
    _refuse_unknown(names, "metric")
    without = [name for name in names if METRICS[name].needs_gt and not has_gt]
    if without:
        free = ", ".join(name for name, info in METRICS.items() if not info.needs_gt)
        raise RasrError(f"{', '.join(without)}: cannot be measured without gt=; give it, or only {free}")
    return list(dict.fromkeys(names))


def _refuse_unknown(names: Sequence[str], what: str) -> None:
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise RasrError(f"unknown {what}: {', '.join(unknown)}; known are {', '.join(METRICS)}")
