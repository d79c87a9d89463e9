"""Full-reference metrics under the protocol of the published OSEDiff tables.

Both work on Y of limited-range YCbCr (ITU-R BT.601, as in MATLAB's `rgb2ycbcr`), with no border cropped.
On OSEDiff's published RealSR outputs they give the published per-image values. Other conventions give other
figures on the same images (full-range Y lowers PSNR by 1.32 dB), so never mix tables.

Compare saved 8-bit files: rounding is part of what is measured.
"""

from collections.abc import Callable

import numpy as np
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import Tensor

from rasr.errors import RasrError

PROTOCOL = {"name": "osediff", "channel": "Y of limited-range YCbCr (BT.601)", "crop_border": 0}

_SSIM_WINDOW = 11


def psnr(sr: Tensor, gt: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of Y, 10 log10(1 / (MSE + 1e-8)): identical images give 80.

    Args:
        sr: (..., 3, H, W), RGB, in [0, 1].
        gt: the same shape and range.

    Returns:
        (...) float64, dB; higher is better.
    """
    return _per_image(_psnr, sr, gt)


def ssim(sr: Tensor, gt: Tensor) -> Tensor:
    """Structural similarity of Y, rounded to 256 levels (Wang et al. 2004: 11x11 Gaussian, sigma 1.5).

    As in pyiqa, whose figures the field reports, negative local values count as 0.

    Args:
        sr: (..., 3, H, W), RGB, in [0, 1]; at least 11 pixels high and wide.
        gt: the same shape and range.

    Returns:
        (...) float64 in [0, 1]; higher is better.
    """
    return _per_image(_ssim, sr, gt)


# What `metrics=[...]` may name.
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim}


def _per_image(metric: Callable[[np.ndarray, np.ndarray], float], sr: Tensor, gt: Tensor) -> Tensor:
    if sr.shape != gt.shape or sr.ndim < 3 or sr.shape[-3] != 3:
        raise ValueError(
            f"expected two (..., 3, H, W) of one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}"
        )
    pairs = zip(sr.reshape(-1, *sr.shape[-3:]), gt.reshape(-1, *gt.shape[-3:]), strict=True)
    values = [metric(_luma(a), _luma(b)) for a, b in pairs]
    return torch.tensor(values, dtype=torch.float64).reshape(sr.shape[:-3])


def _luma(image: Tensor) -> np.ndarray:
    """(H, W) float64, in [16, 235]."""
    pixels = image.detach().cpu().double().numpy()
    return rgb2ycbcr(pixels, channel_axis=0)[0]


def _psnr(sr: np.ndarray, gt: np.ndarray) -> float:
    mse = np.mean(((sr - gt) / 255) ** 2)
    return float(10 * np.log10(1 / (mse + 1e-8)))


def _ssim(sr: np.ndarray, gt: np.ndarray) -> float:
    if min(sr.shape) < _SSIM_WINDOW:
        height, width = sr.shape
        raise RasrError(f"SSIM needs {_SSIM_WINDOW} pixels each way, got {width}x{height}; leave ssim out")
    _, similarity = structural_similarity(
        sr.round(),
        gt.round(),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # Only where the whole window lies inside the image. The luminance factor is positive, so that clamping
    # the product is pyiqa's clamping of the contrast-structure factor.
    border = _SSIM_WINDOW // 2
    return float(similarity[border:-border, border:-border].clip(min=0).mean())
