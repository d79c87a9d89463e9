"""The keys of train.py at its first level; those of its groups are explained in conf/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rasr.config.keys import anything, text, whole


@dataclass
class TrainKeys:
    """See `rasr.config.keys`."""

    name: str = text("rasr", "name of the run: everything it writes lies in outputs/<name>")
    seed: int = whole(0, "of every draw", least=0)
    scale: int = whole(4, "enlargement per side, the same in degradation and restoration")
    gt_size: int = whole(512, "side of the training crops, in pixels")
    resume: Any = anything(
        "auto",
        "auto goes on from the last checkpoint of the run, if there is one; false starts anew; or"
        " a checkpoint file",
    )
