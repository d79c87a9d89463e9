"""Learning-rate schedules as plain functions of the step."""

from __future__ import annotations

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rasr.errors import RasrError


def lr_factor(step: int, *, warmup_steps: int, decay: str, total_steps: int) -> float:
    """Factor on the base learning rate at optimiser step `step` (0-based).

    Args:
        step: optimiser step.
        warmup_steps: linear rise from 0 over this many steps.
        decay: "constant", or "cosine" down to 0 at `total_steps`.
        total_steps: optimiser steps of the whole run.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if decay == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_schedule(optimizer: Optimizer, *, warmup_steps: int, decay: str, total_steps: int) -> LambdaLR:
    """`lr_factor` as a PyTorch scheduler that is stepped once per optimiser step."""
    if decay not in ("constant", "cosine"):
        raise RasrError(f"optim.decay={decay!r} is unknown; give constant or cosine")
    factor = partial(lr_factor, warmup_steps=warmup_steps, decay=decay, total_steps=total_steps)
    return LambdaLR(optimizer, factor)
