"""Adversarial losses on logits (Kumari et al. 2022, one-sided label smoothing): pure functions.

A discriminator gives one tensor of logits per level, of any shape. Each level is averaged over its map and
the batch, the levels are summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

REAL_TARGET = 0.8  # the probability "real" that the discriminator is taught and the generator aims at
FAKE_TARGET = 0.0


def generator_loss(logits_fake: Sequence[Tensor]) -> Tensor:
    """L_GAN: how far the discriminator is from taking restored images for real ones. Scalar > 0."""
    return _bce(logits_fake, REAL_TARGET)


def discriminator_loss(logits_real: Sequence[Tensor], logits_fake: Sequence[Tensor]) -> Tensor:
    """How badly real and restored images are told apart. Scalar > 0."""
    return _bce(logits_real, REAL_TARGET) + _bce(logits_fake, FAKE_TARGET)


def _bce(logits: Sequence[Tensor], target: float) -> Tensor:
    levels = [level.to(torch.promote_types(level.dtype, torch.float32)) for level in logits]
    losses = [F.binary_cross_entropy_with_logits(level, torch.full_like(level, target)) for level in levels]
    return torch.stack(losses).sum()
