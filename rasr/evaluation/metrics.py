"""The metrics there are; of them PSNR and SSIM, in the conventions under which the field publishes them.

A metric of one's own is a function and a call of `register_metric`; it may stand outside this package.

The same images have other figures under another convention: Y of full range lowers PSNR by exactly
20 log10(255 / 219) = 1.32 dB, RGB by more, and a cut border changes it again. See `rasr.evaluation.protocol`.
On OSEDiff's published RealSR outputs these functions give the published per-image values.

Compare saved 8-bit files: rounding is part of what is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import Tensor

from rasr.errors import RasrError

COLORS = {
    "ycbcr": "Y of limited-range YCbCr (BT.601)",
    "yiq": "Y of full-range YIQ (BT.601)",
    "rgb": "RGB",
}

_SSIM_WINDOW = 11


def psnr(sr: Tensor, gt: Tensor, *, color: str = "ycbcr") -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / (MSE + 1e-8)): identical images give 80.

    Args:
        sr: (..., 3, H, W), RGB, in [0, 1].
        gt: the same shape and range.
        color: one of `COLORS`.

    Returns:
        (...) float64, dB; higher is better.
    """
    return _per_image(_psnr, sr, gt, color)


def ssim(sr: Tensor, gt: Tensor, *, color: str = "ycbcr") -> Tensor:
    """Structural similarity of 256 rounded levels (Wang et al. 2004: 11x11 Gaussian, sigma 1.5).

    As in pyiqa, whose figures the field reports, negative local values count as 0, and RGB is the mean of its
    channels.

    Args:
        sr: (..., 3, H, W), RGB, in [0, 1]; at least 11 pixels high and wide.
        gt: the same shape and range.
        color: one of `COLORS`.

    Returns:
        (...) float64 in [0, 1]; higher is better.
    """
    return _per_image(_ssim, sr, gt, color)


def _per_image(
    metric: Callable[[np.ndarray, np.ndarray], float], sr: Tensor, gt: Tensor, color: str
) -> Tensor:
    if sr.shape != gt.shape or sr.ndim < 3 or sr.shape[-3] != 3:
        raise ValueError(
            f"expected two (..., 3, H, W) of one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}"
        )
    pairs = zip(sr.reshape(-1, *sr.shape[-3:]), gt.reshape(-1, *gt.shape[-3:]), strict=True)
    values = [metric(_levels(a, color), _levels(b, color)) for a, b in pairs]
    return torch.tensor(values, dtype=torch.float64).reshape(sr.shape[:-3])


def _levels(image: Tensor, color: str) -> np.ndarray:
    """(C, H, W) float64, in [0, 255]: one channel of luma or three of RGB."""
    pixels = image.detach().cpu().double().numpy()
    if color == "rgb":
        return pixels * 255
    if color == "yiq":
        return 255 * np.tensordot([0.299, 0.587, 0.114], pixels, axes=1)[None]
    return rgb2ycbcr(pixels, channel_axis=0)[:1]


def _psnr(sr: np.ndarray, gt: np.ndarray) -> float:
    mse = np.mean(((sr - gt) / 255) ** 2)
    return float(10 * np.log10(1 / (mse + 1e-8)))


def _ssim(sr: np.ndarray, gt: np.ndarray) -> float:
    if min(sr.shape[1:]) < _SSIM_WINDOW:
        _, height, width = sr.shape
        raise RasrError(f"SSIM needs {_SSIM_WINDOW} pixels each way, got {width}x{height}; leave ssim out")
    _, similarity = structural_similarity(
        sr.round(),
        gt.round(),
        channel_axis=0,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # Only where the whole window lies inside the image. The luminance factor is positive, so that clamping
    # the product is pyiqa's clamping of the contrast-structure factor.
    border = _SSIM_WINDOW // 2
    return float(similarity[:, border:-border, border:-border].clip(min=0).mean())


@dataclass(frozen=True)
class MetricInfo:
    """What tables need to know of a metric."""

    title: str
    digits: int
    """Decimals in tables, as the papers print it."""
    lower_better: bool = False
    needs_gt: bool = True
    per_image: bool = True
    """False: one figure for the whole set."""
    measure: Callable[..., Tensor] | None = None
    """See `register_metric`; None is one of pyiqa, see `rasr.evaluation.toolbox`."""


METRICS = {
    "psnr": MetricInfo("PSNR", 2, measure=psnr),
    "ssim": MetricInfo("SSIM", 4, measure=ssim),
    "fsim": MetricInfo("FSIM", 4),
    "gmsd": MetricInfo("GMSD", 4, lower_better=True),
    "vif": MetricInfo("VIF", 4),
    "lpips": MetricInfo("LPIPS", 4, lower_better=True),
    "dists": MetricInfo("DISTS", 4, lower_better=True),
    "fid": MetricInfo("FID", 2, lower_better=True, per_image=False),
    "kid": MetricInfo("KID", 4, lower_better=True, per_image=False),
    "niqe": MetricInfo("NIQE", 4, lower_better=True, needs_gt=False),
    "musiq": MetricInfo("MUSIQ", 2, needs_gt=False),
    "clipiqa": MetricInfo("CLIPIQA", 4, needs_gt=False),
    "maniqa": MetricInfo("MANIQA", 4, needs_gt=False),
}


def register_metric(
    name: str,
    measure: Callable[..., Tensor],
    *,
    title: str,
    digits: int,
    lower_better: bool = False,
    needs_gt: bool = True,
) -> None:
    """Make a metric known by `metrics=[NAME]`, as a column of every table.

    Args:
        name: what users write. Figures are kept under it: another formula wants another name.
        measure: (sr, gt, color=...) -> (B,), of (B, 3, H, W) in [0, 1] on the CPU with the protocol's border
            cut off; gt is None where the metric needs none and there is none, color one of `COLORS`.
        title: head of its column.
        digits: decimals in tables.
        lower_better: whether less is better.
        needs_gt: whether it compares with the ground truth.
    """
    if name in METRICS:
        raise ValueError(f"there is a metric {name!r} already; choose another name")
    METRICS[name] = MetricInfo(title, digits, lower_better, needs_gt, measure=measure)
