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
from rasr.image_ops import local_mean

EPSILON = 1e-5
"""Added to variances: keeps flat channels from being divided by 0."""

NOISE = 5 / 255
"""Deviation of the noise that halves the low frequencies' weight in `anchor`."""
CELL = 4
"""Pixels of the result: what one pixel of a photograph was, at the usual scale."""
LOW_RADIUS = 3
"""Cells; low frequencies are means in windows of that radius (a deviation of 11 pixels)."""
FLAT_RADIUS = 1
"""Cells around a place in which it is flat, or not."""
FLAT = (0.3 / 255, 1.0 / 255)
"""Deviations in [0, 1] below which a place is flat, and above which it is not."""
GRAY = 0.5 / 255
"""Largest difference of a gray photograph's channels."""

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


def anchor(sr: Tensor, lq_up: Tensor) -> Tensor:
    """Holds what the photograph knows better than the network: smooth areas, mean colours, grayness.

    1. Low frequencies of `lq_up` (`wavelet`), in proportion to how little noise the network took out of it:
       noise that is blurred is still wrong.
    2. Where the photograph is flat, itself: group norms divide by next to nothing there, and every tile of a
       sky would come out a little different.
    3. A gray photograph stays gray.
    """
    # 1. low frequencies; the median leaves edges, where restoring is wanted, out of the noise
    difference = lq_up - sr
    low = local_mean(difference, cell=CELL, radius=LOW_RADIUS)
    rest = (difference - low)[..., ::2, ::2].abs().flatten(1).median(1).values.view(-1, 1, 1, 1) / 0.6745
    fixed = sr + low / (1 + (rest / NOISE).square())

    # 2. flat areas; a smooth slope, such as a sky's, is flat too
    detail = lq_up - local_mean(lq_up, cell=CELL, radius=FLAT_RADIUS)
    deviation = local_mean(detail.square(), cell=CELL, radius=FLAT_RADIUS).amax(1, keepdim=True).sqrt()
    activity = ((deviation - FLAT[0]) / (FLAT[1] - FLAT[0])).clamp(0, 1)
    fixed = lq_up + activity * (fixed - lq_up)

    # 3. gray
    is_gray = ((lq_up - lq_up.mean(1, keepdim=True)).abs().amax((1, 2, 3), keepdim=True) < GRAY).to(sr.dtype)
    fixed = fixed + is_gray * (fixed.mean(1, keepdim=True) - fixed)
    return fixed.clamp(0, 1)


COLOR_FIXES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "adain": adain,
    "wavelet": wavelet,
    "anchor": anchor,
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
