"""The degradation that makes low-quality inputs: Real-ESRGAN's second-order model.

Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (Wang et al., 2021), on
basicsr's kernels, filter and JPEG. Every sample draws its parameters and its noise from a seed of its own,
so it comes out the same whatever batch it is in. It does not crop, flip or read files.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasr.data.basicsr_compat import DiffJPEG, USMSharp, filter2D
from rasr.data.degradation_parameters import StageParameters, draw_parameters
from rasr.data.seeding import SampleRandom
from rasr.errors import RasrError

PRESETS = ("osediff", "realesrgan", "bicubic")
GRAY_WEIGHTS = (0.2989, 0.587, 0.114)


class RealESRGANDegradation(nn.Module):
    """Degrade a batch of clean images.

    Presets, the first two with the published x4 parameters:

    - `osediff`: as OSEDiff trains; the clean image is degraded as it is.
    - `realesrgan`: as Real-ESRGAN trains; the clean image is sharpened (USM) before it is degraded. The
      target that you train on stays yours to choose.
    - `bicubic`: antialiased bicubic downscaling and nothing else; no randomness.

    gt: (B, 3, H, W), RGB, [0, 1], H and W divisible by `scale`.
    lq: (B, 3, H / scale, W / scale), float32, [0, 1], on the 256 levels of an 8-bit file.
    """

    def __init__(self, preset: str = "osediff", *, scale: int = 4) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise RasrError(f"degradation preset {preset!r} is unknown; use one of {', '.join(PRESETS)}")
        self.preset = preset
        self.scale = scale
        # basicsr's JPEG tables are parameters shared by the whole process: copy them, so that moving one
        # instance to a device leaves the others where they are.
        self.jpeg = copy.deepcopy(DiffJPEG(differentiable=False)).requires_grad_(False)
        self.sharpen = USMSharp() if preset == "realesrgan" else None

    @torch.no_grad()
    def forward(
        self, gt: Tensor, generator: torch.Generator | None = None, *, seeds: Tensor | None = None
    ) -> Tensor:
        """Degrade `gt`.

        Args:
            gt: see the class.
            generator: draws one seed per sample; None is torch's global generator.
            seeds: (B,) int64, the samples' seeds; excludes `generator`.
        """
        height, width = gt.shape[-2:]
        if height % self.scale or width % self.scale:
            raise RasrError(
                f"{width}x{height} is not divisible by {self.scale}; crop the image to a multiple of it"
            )
        size = (height // self.scale, width // self.scale)
        with torch.autocast(gt.device.type, enabled=False):  # half precision would band the smooth areas
            gt = gt.float()
            if self.preset == "bicubic":
                return quantize(F.interpolate(gt, size=size, mode="bicubic", antialias=True))
            seeds = _draw_seeds(len(gt), generator) if seeds is None else _check_seeds(seeds, gt, generator)
            samples = zip(gt.split(1), seeds.tolist(), strict=True)
            return torch.cat([self._degrade(image, size, SampleRandom(seed)) for image, seed in samples])

    def _degrade(self, image: Tensor, size: tuple[int, int], rng: SampleRandom) -> Tensor:
        """Degrade one image (1, 3, H, W) to (1, 3, *size)."""
        drawn = draw_parameters(rng)
        first, second = drawn.stages
        if self.sharpen is not None:
            image = _with_margin(self.sharpen, image, self.sharpen.radius // 2)

        # 1. first stage: blur, resize, noise, JPEG
        image = blur(image, first.kernel)
        image = _resize_by(image, first.resize_factor, first.resize_mode)
        image = add_noise(image, first, rng.generator)
        image = self.jpeg(image, quality=first.jpeg_quality)

        # 2. second stage: blur, resize, noise
        image = blur(image, second.kernel)
        between = tuple(max(1, int(side * second.resize_factor)) for side in size)
        image = F.interpolate(image, size=between, mode=second.resize_mode)
        image = add_noise(image, second, rng.generator)

        # 3. the final size with its sinc filter and the second JPEG, in either order
        if not drawn.is_jpeg_last:
            image = self.jpeg(image, quality=second.jpeg_quality)
        image = F.interpolate(image, size=size, mode=drawn.final_mode)
        image = blur(image, drawn.final_kernel)
        if drawn.is_jpeg_last:
            image = self.jpeg(image.clamp(0, 1), quality=second.jpeg_quality)
        return quantize(image)


def add_noise(image: Tensor, stage: StageParameters, generator: torch.Generator) -> Tensor:
    """Add the stage's noise to an image (1, 3, H, W); the result is clamped to [0, 1].

    The noise is drawn on the CPU, so that a seed means the same noise on every device.
    """
    if stage.is_gaussian:
        shape = (1, 1 if stage.is_gray else 3, *image.shape[-2:])
        noise = torch.randn(shape, generator=generator).to(image.device) * (stage.noise_level / 255)
    else:
        exposed = image
        if stage.is_gray:
            exposed = (image * image.new_tensor(GRAY_WEIGHTS).view(1, 3, 1, 1)).sum(1, keepdim=True)
        exposed = quantize(exposed)
        # Photons at full white, as scikit-image guesses them: the power of two above the levels in use.
        levels = torch.bincount((exposed * 255).round().long().flatten(), minlength=256)
        photons = 1 << (int(levels.count_nonzero()) - 1).bit_length()
        counts = torch.poisson((exposed * photons).cpu(), generator=generator).to(image.device)
        noise = (counts / photons - exposed) * stage.noise_level
    return (image + noise).clamp(0, 1)


def blur(image: Tensor, kernel: Tensor | None) -> Tensor:
    """Filter an image (1, 3, H, W) with a (k, k) kernel; None leaves it as it is."""
    if kernel is None:
        return image
    batch = kernel.to(image.device)[None]
    return _with_margin(lambda padded: filter2D(padded, batch), image, kernel.shape[-1] // 2)


def quantize(image: Tensor) -> Tensor:
    """Round to the 256 levels of an 8-bit file, still in [0, 1]."""
    return (image.clamp(0, 1) * 255).round() / 255


def _draw_seeds(count: int, generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**63 - 1, (count,), generator=generator, dtype=torch.int64, device=device)


def _check_seeds(seeds: Tensor, gt: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is not None:
        raise ValueError("give either a generator or seeds, not both")
    if seeds.shape != gt.shape[:1]:
        raise ValueError(f"expected one seed per image, ({len(gt)},), got {tuple(seeds.shape)}")
    return seeds


def _resize_by(image: Tensor, factor: float, mode: str) -> Tensor:
    if min(image.shape[-2:]) * factor < 1:  # never below one pixel
        return F.interpolate(image, size=[max(1, int(side * factor)) for side in image.shape[-2:]], mode=mode)
    return F.interpolate(image, scale_factor=factor, mode=mode)


def _with_margin(filter_: Callable[[Tensor], Tensor], image: Tensor, radius: int) -> Tensor:
    """Apply a reflecting filter; an image too small to reflect gets an edge-replicating margin first."""
    if min(image.shape[-2:]) > radius:
        return filter_(image)
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    return filter_(padded)[..., radius:-radius, radius:-radius]
