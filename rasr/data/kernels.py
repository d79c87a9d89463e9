"""Blur kernels of the Real-ESRGAN degradation, drawn from a sample's own random stream.

The formulas are basicsr's; only the drawing of their parameters is ours, because basicsr draws from the
global generators of `random` and NumPy. basicsr pads every kernel to 21x21 to stack them; here they keep
their size, which filters the same and costs half.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rasr.data.basicsr_compat import (
    bivariate_Gaussian,
    bivariate_generalized_Gaussian,
    bivariate_plateau,
    circular_lowpass_kernel,
)
from rasr.data.seeding import SampleRandom

KERNEL_SIZES = (7, 9, 11, 13, 15, 17, 19, 21)
SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")


@dataclass(frozen=True)
class KernelSpec:
    """What one stage's blur kernels are drawn from; sigmas in pixels."""

    sigma_range: tuple[float, float]
    shape_weights: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """One weight per entry of SHAPES."""
    sinc_prob: float = 0.1
    """Probability of a sinc (ringing) kernel in place of one of SHAPES."""
    betag_range: tuple[float, float] = (0.5, 4.0)
    """Exponent of the generalized Gaussian; below and above 1 are equally likely."""
    betap_range: tuple[float, float] = (1.0, 2.0)
    """Exponent of the plateau kernel, drawn likewise."""


def draw_blur_kernel(spec: KernelSpec, rng: SampleRandom) -> Tensor:
    """Draw a kernel: (k, k) float32 with sum 1, k one of KERNEL_SIZES."""
    size = rng.choice(KERNEL_SIZES)
    if rng.chance(spec.sinc_prob):
        # Small kernels cannot hold the slow oscillation of a low cutoff.
        return _sinc(rng.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi), size)
    shape = rng.choice(SHAPES, spec.shape_weights)
    isotropic = not shape.endswith("aniso")
    sigma_x = rng.uniform(*spec.sigma_range)
    sigma_y = sigma_x if isotropic else rng.uniform(*spec.sigma_range)
    theta = 0.0 if isotropic else rng.uniform(-math.pi, math.pi)
    if shape.startswith("generalized"):
        beta = _draw_beta(spec.betag_range, rng)
        kernel = bivariate_generalized_Gaussian(size, sigma_x, sigma_y, theta, beta, isotropic=isotropic)
    elif shape.startswith("plateau"):
        beta = _draw_beta(spec.betap_range, rng)
        kernel = bivariate_plateau(size, sigma_x, sigma_y, theta, beta, isotropic=isotropic)
    else:
        kernel = bivariate_Gaussian(size, sigma_x, sigma_y, theta, isotropic=isotropic)
    return torch.from_numpy(kernel).float()


def draw_sinc_kernel(rng: SampleRandom) -> Tensor:
    """Draw the kernel of the final sinc filter: (k, k) float32 with sum 1, k one of KERNEL_SIZES."""
    return _sinc(rng.uniform(math.pi / 3, math.pi), rng.choice(KERNEL_SIZES))


def _draw_beta(beta_range: tuple[float, float], rng: SampleRandom) -> float:
    low, high = beta_range
    return rng.uniform(low, 1) if rng.chance(0.5) else rng.uniform(1, high)


def _sinc(cutoff: float, size: int) -> Tensor:
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 at the centre, which basicsr then fills in
        return torch.from_numpy(circular_lowpass_kernel(cutoff, size)).float()
