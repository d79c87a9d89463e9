"""Training losses: one file per family, weights in `composite`."""

from rasr.losses.composite import RestorationLoss

__all__ = ["RestorationLoss"]
