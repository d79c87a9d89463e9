"""Training losses: one file per family, weights in `composite`."""

from rasr.losses.adversarial import discriminator_loss, generator_loss
from rasr.losses.composite import RestorationLoss

__all__ = ["RestorationLoss", "discriminator_loss", "generator_loss"]
