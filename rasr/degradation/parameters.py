"""What the degradation does to each sample: the published ranges, and one drawn (or given) set of parameters.

The numbers are those of Real-ESRGAN's x4 training; OSEDiff uses the same. Nothing here touches an image. A
set of parameters is plain data: `dataclasses.asdict` writes it down, :func:`parse_parameters` reads it back.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from rasr.degradation.kernels import Kernel, KernelSpec, draw_blur_kernel, draw_sinc_kernel
from rasr.errors import RasrError
from rasr.seeding import SampleRandom

Parsed = TypeVar("Parsed")

RESIZE_MODES = ("area", "bilinear", "bicubic")
ANTIALIASED = "antialiased"
"""Bicubic with antialiasing, as an image program shrinks; Real-ESRGAN's own draws never take it."""
RESIZE_DIRECTIONS = ("up", "down", "keep")
MAX_FACTOR = 8  # of given parameters: beyond it a photograph no longer fits into memory
MAX_NOISE = 255


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

# Choices of this project: no paper has a preset for photographs that are nearly clean.
MILD_KERNEL = KernelSpec(sigma_range=(0.2, 2.0))
MILD_BLUR_PROB = 0.25
MILD_NOISE = ((0.0, 3.0), (3.0, 12.0))
"""Standard deviations in 1/255: of most samples, and of the others."""
MILD_JPEG = (60.0, 98.0)
MILD_JPEG_PROB = 0.75
RANGE_SHARES = (0.35, 0.15, 0.5)
"""Of mild, OSEDiff's and Real-ESRGAN's samples: the hardest need most of the training."""


@dataclass(frozen=True)
class StageParameters:
    """What one stage does to one sample."""

    kernel: Kernel | None
    """None does not blur."""
    resize_factor: float
    """Stage 1: of the image before it, stage 2: of the final LQ size."""
    resize_mode: str
    """One of RESIZE_MODES, or ANTIALIASED."""
    is_gaussian: bool
    """Gaussian noise; Poisson noise otherwise."""
    noise_level: float
    """Standard deviation in 1/255 if Gaussian, else multiple of the Poisson noise; 0 adds none."""
    is_gray: bool
    """The same noise in R, G and B."""
    jpeg_quality: float | None
    """In (0, 100]; None does not compress."""

    def __post_init__(self) -> None:
        _check_mode("resize_mode", self.resize_mode)
        _check_flags(self, "is_gaussian", "is_gray")
        if not 0 < self.resize_factor <= MAX_FACTOR:
            raise RasrError(
                f"resize_factor={self.resize_factor} is not in (0, {MAX_FACTOR}]; give such a number"
            )
        if not 0 <= self.noise_level <= MAX_NOISE:
            raise RasrError(f"noise_level={self.noise_level} is not in [0, {MAX_NOISE}]; give such a number")
        if self.jpeg_quality is not None and not 0 < self.jpeg_quality <= 100:
            raise RasrError(
                f"jpeg_quality={self.jpeg_quality} is not in (0, 100]; give such a number, or null"
            )


@dataclass(frozen=True)
class SampleParameters:
    """Everything that happens to one sample, the values of the noise apart."""

    is_sharpened: bool
    """Whether the clean image is sharpened (USM) before it is degraded."""
    first: StageParameters
    second: StageParameters
    final_mode: str
    """How the image is brought to its final size, one of RESIZE_MODES, or ANTIALIASED."""
    final_kernel: Kernel | None
    """The filter after that."""
    is_jpeg_last: bool
    """Whether the second JPEG comes after the final resize and filter, or before."""

    def __post_init__(self) -> None:
        _check_mode("final_mode", self.final_mode)
        _check_flags(self, "is_sharpened", "is_jpeg_last")


def draw_parameters(rng: SampleRandom, *, is_sharpened: bool) -> SampleParameters:
    """Draw what happens to one sample."""
    return SampleParameters(
        is_sharpened=is_sharpened,
        first=_draw_stage(STAGES[0], rng),
        second=_draw_stage(STAGES[1], rng),
        final_mode=rng.choice(RESIZE_MODES),
        final_kernel=draw_sinc_kernel(rng) if rng.chance(FINAL_SINC_PROB) else None,
        is_jpeg_last=rng.chance(0.5),
    )


def draw_mild_parameters(rng: SampleRandom) -> SampleParameters:
    """Draw what happens to a nearly clean sample: shrunk, a little noise, a good JPEG; one stage of each."""
    nothing = StageParameters(None, 1.0, ANTIALIASED, True, 0.0, False, None)
    kernel = draw_blur_kernel(MILD_KERNEL, rng) if rng.chance(MILD_BLUR_PROB) else None
    noise = rng.uniform(*MILD_NOISE[rng.chance(0.3)])
    quality = rng.uniform(*MILD_JPEG) if rng.chance(MILD_JPEG_PROB) else None
    second = StageParameters(kernel, 1.0, ANTIALIASED, True, noise, rng.chance(0.2), quality)
    return SampleParameters(False, nothing, second, ANTIALIASED, None, True)


def draw_range_parameters(rng: SampleRandom) -> SampleParameters:
    """Draw from the whole range of strengths: nearly clean, OSEDiff's, or Real-ESRGAN's (sharpened first)."""
    kind = rng.choice(("mild", "osediff", "realesrgan"), RANGE_SHARES)
    if kind == "mild":
        return draw_mild_parameters(rng)
    return draw_parameters(rng, is_sharpened=kind == "realesrgan")


def parse_parameters(given: Mapping[str, Any]) -> SampleParameters:
    """Read a set of parameters from nested mappings, as `dataclasses.asdict` and the YAML files hold it.

    Raises:
        RasrError: a key is missing or unknown, or a value is out of its range; the message says which.
    """
    parsed = dict(given)
    for name in ("first", "second"):
        if name in parsed:
            parsed[name] = _parse_stage(parsed[name], name)
    if parsed.get("final_kernel") is not None:
        parsed["final_kernel"] = _build(Kernel, parsed["final_kernel"], "final_kernel")
    return _build(SampleParameters, parsed, "parameters")


def _parse_stage(given: Mapping[str, Any], place: str) -> StageParameters:
    parsed = dict(given) if isinstance(given, Mapping) else given
    if isinstance(parsed, dict) and parsed.get("kernel") is not None:
        parsed["kernel"] = _build(Kernel, parsed["kernel"], f"{place}.kernel")
    return _build(StageParameters, parsed, place)


def _build(cls: type[Parsed], given: Mapping[str, Any], place: str) -> Parsed:
    known = {field.name: field.default is MISSING for field in fields(cls)}
    if not isinstance(given, Mapping):
        raise RasrError(f"degradation {place}={given} is not a mapping; give the keys {', '.join(known)}")
    unknown = [name for name in given if name not in known]
    missing = [name for name, is_required in known.items() if is_required and name not in given]
    if unknown or missing:
        found = f"unknown key {unknown[0]}" if unknown else f"missing key {missing[0]}"
        raise RasrError(f"degradation {place}: {found}; the keys are {', '.join(known)}")
    try:
        return cls(**given)
    except RasrError as error:
        raise RasrError(f"degradation {place}: {error}") from error
    except TypeError as error:
        raise RasrError(
            f"degradation {place}: a value is of a wrong type ({error}); give a number"
        ) from error


def _check_flags(parameters: object, *names: str) -> None:
    for name in names:
        value = getattr(parameters, name)
        if not isinstance(value, bool):
            raise RasrError(f"{name}={value} is neither true nor false; give one of them")


def _check_mode(name: str, mode: str) -> None:
    known = (*RESIZE_MODES, ANTIALIASED)
    if mode not in known:
        raise RasrError(f"{name}={mode} is unknown; use one of {', '.join(known)}")


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
