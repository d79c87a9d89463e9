"""Colour fixes: give a restored image back the colours of the image it was made from.

Diffusion backbones drift in colour; the low-quality image is poor in detail but right in colour. Functions on
(B, 3, H, W) RGB in [0, 1]: `sr` is the restored image, `lq_up` the LR image on the same grid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.errors import RasrError

EPSILON = 1e-5
"""Added to variances: keeps flat channels from being divided by 0."""

WAVELET_LEVELS = 5
"""Blurs with dilation 1, 2, 4, 8, 16: together they reach 31 pixels to each side."""


def adain(sr: Tensor, lq_up: Tensor) -> Tensor:
    """Gives every channel of `sr` the mean and standard deviation that it has in `lq_up`.

    AdaIN (Huang and Belongie 2017), on pixels instead of features as in StableSR and OSEDiff.
    """
    dims = (-2, -1)
    sr_var, sr_mean = torch.var_mean(sr, dims, correction=0, keepdim=True)
    lq_var, lq_mean = torch.var_mean(lq_up, dims, correction=0, keepdim=True)
    gain = ((lq_var + EPSILON) / (sr_var + EPSILON)).sqrt()
    return ((sr - sr_mean) * gain + lq_mean).clamp(0, 1)


def wavelet(sr: Tensor, lq_up: Tensor) -> Tensor:
    """Joins the high frequencies of `sr` to the low frequencies of `lq_up`, split by à-trous wavelets.

    As in StableSR. `sr - low(sr) + low(lq_up)`; the low pass is linear, so one pass over the difference does.
    """
    return (sr + low_pass(lq_up - sr)).clamp(0, 1)


def none(sr: Tensor, lq_up: Tensor) -> Tensor:
    """Leaves `sr` as it is."""
    return sr


COLOR_FIXES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "adain": adain,
    "wavelet": wavelet,
    "none": none,
}


def get_color_fix(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of that name; an unknown name is a RasrError."""
    if not isinstance(name, str) or name not in COLOR_FIXES:
        raise RasrError(f"color_fix={name!r} is unknown; give one of {', '.join(COLOR_FIXES)}")
    return COLOR_FIXES[name]


def low_pass(images: Tensor) -> Tensor:
    """What is left of (B, C, H, W) after `WAVELET_LEVELS` binomial blurs, each twice as wide as the last."""
    channels = images.shape[1]
    row = images.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
    for level in range(WAVELET_LEVELS):
        dilation = 2**level
        padded = F.pad(images, (dilation,) * 4, mode="replicate")
        images = F.conv2d(padded, kernel, dilation=dilation, groups=channels)
    return images
