"""Blur kernels of the Real-ESRGAN degradation: their parameters, and the drawing of these.

The formulas are basicsr's; only the drawing of their parameters is ours, because basicsr draws from the
global generators of `random` and NumPy.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.degradation.basicsr_compat import (
    bivariate_Gaussian,
    bivariate_generalized_Gaussian,
    bivariate_plateau,
    circular_lowpass_kernel,
)
from rasr.errors import RasrError
from rasr.seeding import SampleRandom

KERNEL_SIZES = (7, 9, 11, 13, 15, 17, 19, 21)
MAX_SIZE = 21
DRAWN_SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
SHAPES = (*DRAWN_SHAPES, "sinc")


@dataclass(frozen=True)
class Kernel:
    """The parameters of one kernel; what its shape does not use stays None."""

    shape: str
    """One of SHAPES."""
    size: int
    """Side in pixels, odd, at most MAX_SIZE."""
    sigma_x: float | None = None
    """Standard deviation in pixels, of every shape but sinc; of the isotropic ones the only one."""
    sigma_y: float | None = None
    """Across sigma_x; anisotropic shapes only."""
    theta: float | None = None
    """Rotation in radians; anisotropic shapes only."""
    beta: float | None = None
    """Exponent of the generalized Gaussian and of the plateau."""
    cutoff: float | None = None
    """Cutoff frequency of the sinc, in radians per pixel, up to pi."""

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise RasrError(f"kernel shape={self.shape} is unknown; use one of {', '.join(SHAPES)}")
        if not (1 <= self.size <= MAX_SIZE and self.size % 2 == 1):
            raise RasrError(f"kernel size={self.size} does not fit; give an odd number up to {MAX_SIZE}")
        needed = _needed_fields(self.shape)
        for name in ("sigma_x", "sigma_y", "theta", "beta", "cutoff"):
            value = getattr(self, name)
            if (value is not None) != (name in needed):
                mend = f"give it {', '.join(needed)} and nothing else"
                raise RasrError(f"kernel {name}={value} does not go with shape={self.shape}; {mend}")
            if value is not None and not -math.inf < value < math.inf:
                raise RasrError(f"kernel {name}={value} is not finite; give a finite number")
            if value is not None and value <= 0 and name != "theta":
                raise RasrError(f"kernel {name}={value} is not above 0; give a positive number")

    def weights(self) -> Tensor:
        """Return (MAX_SIZE, MAX_SIZE) float32 with sum 1: the kernel amid zeros."""
        isotropic = not self.shape.endswith("aniso")
        gaussian = (self.size, self.sigma_x, self.sigma_y, self.theta)
        if self.shape == "sinc":
            with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 at the centre, filled in by basicsr
                kernel = circular_lowpass_kernel(self.cutoff, self.size)
        elif self.shape.startswith("generalized"):
            kernel = bivariate_generalized_Gaussian(*gaussian, self.beta, isotropic=isotropic)
        elif self.shape.startswith("plateau"):
            kernel = bivariate_plateau(*gaussian, self.beta, isotropic=isotropic)
        else:
            kernel = bivariate_Gaussian(*gaussian, isotropic=isotropic)
        margin = (MAX_SIZE - self.size) // 2
        return F.pad(torch.from_numpy(kernel).float(), (margin,) * 4)


def _needed_fields(shape: str) -> tuple[str, ...]:
    if shape == "sinc":
        return ("cutoff",)
    fields = ("sigma_x", "sigma_y", "theta") if shape.endswith("aniso") else ("sigma_x",)
    return fields if shape in ("iso", "aniso") else (*fields, "beta")


@dataclass(frozen=True)
class KernelSpec:
    """What one stage's blur kernels are drawn from; sigmas in pixels."""

    sigma_range: tuple[float, float]
    shape_weights: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """One weight per entry of DRAWN_SHAPES."""
    sinc_prob: float = 0.1
    """Probability of a sinc (ringing) kernel in place of one of DRAWN_SHAPES."""
    betag_range: tuple[float, float] = (0.5, 4.0)
    """Exponent of the generalized Gaussian; below and above 1 are equally likely."""
    betap_range: tuple[float, float] = (1.0, 2.0)
    """Exponent of the plateau kernel, drawn likewise."""


def draw_blur_kernel(spec: KernelSpec, rng: SampleRandom) -> Kernel:
    """Draw the blur kernel of a stage."""
    size = rng.choice(KERNEL_SIZES)
    if rng.chance(spec.sinc_prob):
        # Small kernels cannot hold the slow oscillation of a low cutoff.
        return Kernel("sinc", size, cutoff=rng.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi))
    shape = rng.choice(DRAWN_SHAPES, spec.shape_weights)
    drawn = {"sigma_x": rng.uniform(*spec.sigma_range)}
    if shape.endswith("aniso"):
        drawn |= {"sigma_y": rng.uniform(*spec.sigma_range), "theta": rng.uniform(-math.pi, math.pi)}
    if shape.startswith("generalized"):
        drawn["beta"] = _draw_beta(spec.betag_range, rng)
    elif shape.startswith("plateau"):
        drawn["beta"] = _draw_beta(spec.betap_range, rng)
    return Kernel(shape, size, **drawn)


def draw_sinc_kernel(rng: SampleRandom) -> Kernel:
    """Draw the kernel of the final sinc filter."""
    return Kernel("sinc", rng.choice(KERNEL_SIZES), cutoff=rng.uniform(math.pi / 3, math.pi))


def _draw_beta(beta_range: tuple[float, float], rng: SampleRandom) -> float:
    low, high = beta_range
    return rng.uniform(low, 1) if rng.chance(0.5) else rng.uniform(1, high)
