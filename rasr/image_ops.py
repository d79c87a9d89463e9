"""Resizing and padding of image batches, the same in training and inference.

Everything takes and returns (B, 3, H, W) RGB in [0, 1].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Per RGB channel in [0, 1]: what torchvision's and timm's networks were trained with."""


def resize_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic resize to `size` (H, W), clamped to [0, 1]; antialiased where it shrinks."""
    if images.shape[-2:] == size:
        return images
    shrinks = size[0] < images.shape[-2] or size[1] < images.shape[-1]
    resized = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=shrinks)
    return resized.clamp(0, 1)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pads bottom and right to multiples of `multiple`: mirrored as far as the image goes, then repeated."""
    for dim in (-2, -1):
        missing = -images.shape[dim] % multiple
        # Reflection needs more pixels than it adds; what it cannot give is the repeated edge.
        mirrored = min(missing, images.shape[dim] - 1)
        for amount, mode in ((mirrored, "reflect"), (missing - mirrored, "replicate")):
            if amount:
                images = F.pad(images, (0, 0, 0, amount) if dim == -2 else (0, amount, 0, 0), mode=mode)
    return images


def cover_and_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes with the aspect kept until `size` (H, W) is covered, then crops its centre."""
    height, width = images.shape[-2:]
    factor = max(size[0] / height, size[1] / width)
    resized = resize_bicubic(
        images, (max(size[0], round(height * factor)), max(size[1], round(width * factor)))
    )
    top, left = (resized.shape[-2] - size[0]) // 2, (resized.shape[-1] - size[1]) // 2
    return resized[..., top : top + size[0], left : left + size[1]]


def local_mean(images: Tensor, *, cell: int, radius: int) -> Tensor:
    """Smooth means of (B, C, H, W) around every pixel: a box of cells, twice, which is nearly a Gaussian.

    Its deviation is about `0.82 * cell * (radius + 0.5)` pixels; computed on cells, so it costs little.

    Args:
        images: any values; H and W of at least one cell.
        cell: side of a cell in pixels.
        radius: of the box, in cells.
    """
    size = images.shape[-2:]
    means = F.avg_pool2d(images, cell, ceil_mode=True, count_include_pad=False)
    box = 2 * radius + 1
    for _ in range(2):
        padded = F.pad(means, (radius,) * 4, mode="replicate")
        means = F.avg_pool2d(F.avg_pool2d(padded, (box, 1), 1), (1, box), 1)
    # Of the whole cells that cover the picture; what lies over its edge is cut off.
    whole = (means.shape[-2] * cell, means.shape[-1] * cell)
    enlarged = F.interpolate(means, whole, mode="bilinear", align_corners=False)
    return enlarged[..., : size[0], : size[1]]


def shrink_to(images: Tensor, long_side: int) -> Tensor:
    """(B, C, H, W), shrunk until its long side is at most `long_side`; the aspect is kept."""
    height, width = images.shape[-2:]
    factor = long_side / max(height, width)
    if factor >= 1:
        return images
    return resize_bicubic(images, (max(1, round(height * factor)), max(1, round(width * factor))))
