"""DiffAugment (Zhao et al. 2020): random colour, translation and cutout before a discriminator.

Differentiable, so that the generator learns through it. It works on [0, 1]; the paper's figures, made for
[-1, 1], are converted: its brightness +-0.5 is +-0.25 here, and its 0 beyond the edges is mid-grey.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 0.5
MAX_BRIGHTNESS = 0.25
MAX_SATURATION = 2.0
CONTRAST = (0.5, 1.5)
MAX_SHIFT = 1 / 8  # of the side
CUTOUT = 1 / 2  # of the side


def diff_augment(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same shape; colours may leave [0, 1].

    Every image is augmented differently. All draws come from torch's default CPU generator: no device has to
    wait for them, and the same seed gives the same augmentations on every device.
    """
    return torch.stack([_cutout(_translate(_change_colour(image))) for image in images])


def _change_colour(image: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast of one (3, H, W)."""
    image = image + _uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS)
    image = torch.lerp(image.mean(dim=0, keepdim=True), image, _uniform(0, MAX_SATURATION))
    return torch.lerp(image.mean().expand_as(image), image, _uniform(*CONTRAST))


def _translate(image: Tensor) -> Tensor:
    """Shifts one (3, H, W) by whole pixels; what comes in is grey."""
    down, right = (_integer(-int(side * MAX_SHIFT), int(side * MAX_SHIFT)) for side in image.shape[1:])
    return F.pad(image, (right, -right, down, -down), value=GREY)


def _cutout(image: Tensor) -> Tensor:
    """Paints a rectangle grey; its centre lies anywhere in the image."""
    covered = image.new_zeros(image.shape[1:], dtype=torch.bool)
    rows, columns = (_span(side) for side in image.shape[1:])
    covered[rows, columns] = True
    return image.masked_fill(covered, GREY)


def _span(side: int) -> slice:
    length = int(side * CUTOUT)
    start = _integer(0, side) - length // 2
    return slice(max(start, 0), max(start + length, 0))


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), device="cpu").item()


def _integer(low: int, high: int) -> int:
    """Both ends may come."""
    return int(torch.randint(low, high + 1, (), device="cpu").item())
