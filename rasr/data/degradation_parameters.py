"""What the degradation draws for each sample: the published ranges, and one drawn set of parameters.

The numbers are those of Real-ESRGAN's x4 training; OSEDiff uses the same. Nothing here touches an image.
"""

from dataclasses import dataclass

from torch import Tensor

from rasr.data.kernels import KernelSpec, draw_blur_kernel, draw_sinc_kernel
from rasr.data.seeding import SampleRandom

RESIZE_MODES = ("area", "bilinear", "bicubic")
RESIZE_DIRECTIONS = ("up", "down", "keep")


@dataclass(frozen=True)
class StageSpec:
    """What one of the two degradation stages draws its parameters from."""

    kernel: KernelSpec
    blur_prob: float
    resize_weights: tuple[float, float, float]
    """Weights of up, down, keep."""
    resize_range: tuple[float, float]
    """Smallest and largest factor; stage 1: of the image before it, stage 2: of the final LQ size."""
    noise_range: tuple[float, float]
    """Standard deviation of the Gaussian noise, in 1/255."""
    poisson_range: tuple[float, float]
    """Multiple of the Poisson noise of a full 8-bit exposure."""
    gaussian_noise_prob: float = 0.5
    """Probability of Gaussian noise; it is Poisson noise otherwise."""
    gray_noise_prob: float = 0.4
    """Probability of noise that is the same in R, G and B."""
    jpeg_range: tuple[float, float] = (30.0, 95.0)
    """JPEG quality."""


STAGES = (
    StageSpec(
        kernel=KernelSpec(sigma_range=(0.2, 3.0)),
        blur_prob=1.0,
        resize_weights=(0.2, 0.7, 0.1),
        resize_range=(0.15, 1.5),
        noise_range=(1.0, 30.0),
        poisson_range=(0.05, 3.0),
    ),
    StageSpec(
        kernel=KernelSpec(sigma_range=(0.2, 1.5)),
        blur_prob=0.8,
        resize_weights=(0.3, 0.4, 0.3),
        resize_range=(0.3, 1.2),
        noise_range=(1.0, 25.0),
        poisson_range=(0.05, 2.5),
    ),
)
FINAL_SINC_PROB = 0.8


@dataclass(frozen=True)
class StageParameters:
    """What one stage does to one sample; fields as in :class:`StageSpec`."""

    kernel: Tensor | None
    resize_factor: float
    resize_mode: str
    is_gaussian: bool
    noise_level: float
    is_gray: bool
    jpeg_quality: float


@dataclass(frozen=True)
class SampleParameters:
    """Everything that is drawn for one sample, the noise fields apart."""

    stages: tuple[StageParameters, StageParameters]
    final_mode: str
    final_kernel: Tensor | None
    is_jpeg_last: bool


def draw_parameters(rng: SampleRandom) -> SampleParameters:
    """Draw what happens to one sample."""
    return SampleParameters(
        stages=(_draw_stage(STAGES[0], rng), _draw_stage(STAGES[1], rng)),
        final_mode=rng.choice(RESIZE_MODES),
        final_kernel=draw_sinc_kernel(rng) if rng.chance(FINAL_SINC_PROB) else None,
        is_jpeg_last=rng.chance(0.5),
    )


def _draw_stage(spec: StageSpec, rng: SampleRandom) -> StageParameters:
    kernel = draw_blur_kernel(spec.kernel, rng) if rng.chance(spec.blur_prob) else None
    direction = rng.choice(RESIZE_DIRECTIONS, spec.resize_weights)
    smallest, largest = spec.resize_range
    low, high = {"up": (1, largest), "down": (smallest, 1), "keep": (1, 1)}[direction]
    resize_factor, resize_mode = rng.uniform(low, high), rng.choice(RESIZE_MODES)
    is_gaussian = rng.chance(spec.gaussian_noise_prob)
    return StageParameters(
        kernel=kernel,
        resize_factor=resize_factor,
        resize_mode=resize_mode,
        is_gaussian=is_gaussian,
        noise_level=rng.uniform(*(spec.noise_range if is_gaussian else spec.poisson_range)),
        is_gray=rng.chance(spec.gray_noise_prob),
        jpeg_quality=rng.uniform(*spec.jpeg_range),
    )
