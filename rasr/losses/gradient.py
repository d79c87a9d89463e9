"""Gradient loss: restored edges shall be as strong as the true ones (SPSR, Ma et al. 2020, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_loss(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of the gradient magnitudes, at half the size (as the metric GMSD takes them).

    The squared error of pixels is least for the mean of all images that are possible, which is blurred; the
    magnitude does not average out with the direction. At full size a decoder that enlarges by 4 earned the
    missing magnitude by a faint grid of period 4; at half size central differences do not see that period.

    Args:
        sr: (B, C, H, W) restored images.
        gt: (B, C, H, W) ground truth.

    Returns:
        A scalar in at least float32.
    """
    return F.l1_loss(gradient_magnitude(sr), gradient_magnitude(gt))


def gradient_magnitude(images: Tensor) -> Tensor:
    """Length of the central differences at half the size, in at least float32.

    (B, C, H, W) -> (B, C, H // 2 - 2, W // 2 - 2).
    """
    images = F.avg_pool2d(images.to(torch.promote_types(images.dtype, torch.float32)), 2)
    dx = (images[..., 1:-1, 2:] - images[..., 1:-1, :-2]) / 2
    dy = (images[..., 2:, 1:-1] - images[..., :-2, 1:-1]) / 2
    return (dx.square() + dy.square() + 1e-6).sqrt()  # the root has no slope at 0
