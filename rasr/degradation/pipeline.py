"""The degradation that makes low-quality inputs: Real-ESRGAN's second-order model.

Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (Wang et al., 2021), with
basicsr's kernels and its arithmetic of filter and JPEG. Every sample draws its parameters and its noise from
a seed of its own, so it comes out the same whatever batch it is in. It does not crop, flip or read files.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.degradation.base import Degradation
from rasr.degradation.parameters import (
    SampleParameters,
    draw_mild_parameters,
    draw_parameters,
    draw_range_parameters,
    parse_parameters,
)
from rasr.degradation.steps import add_noise, blur, jpeg, quantize, resize, sharpen
from rasr.errors import RasrError
from rasr.seeding import SampleRandom, sample_seed

PRESETS = ("osediff", "realesrgan", "mild", "range", "bicubic", "fixed")


class RealESRGANDegradation(Degradation):
    """Degrade a batch of clean images.

    Presets, the first two with the published x4 parameters:

    - `osediff`: as OSEDiff trains; the clean image is degraded as it is.
    - `realesrgan`: as Real-ESRGAN trains; the clean image is sharpened (USM) before it is degraded. The
      target that you train on stays yours to choose.
    - `mild`: nearly clean: antialiased bicubic downscaling, a little noise, a good JPEG.
    - `range`: every sample draws its strength: 35 % mild, 15 % as osediff, 50 % as realesrgan. For nets that
      shall do no harm to a good photograph.
    - `bicubic`: antialiased bicubic downscaling and nothing else; no randomness.
    - `fixed`: every image gets the same given parameters, only its noise is its own; for test sets.

    gt: (B, 3, H, W), RGB, [0, 1], H and W divisible by `scale`, on any device.
    lq: (B, 3, H / scale, W / scale), float32, [0, 1], on the 256 levels of an 8-bit file.

    A sample's parameters are the same on every device. On CUDA the noise is drawn there, so that nothing
    waits for it: it has the same distribution as on the CPU, but other values.
    """

    def __init__(
        self, preset: str = "osediff", *, scale: int = 4, parameters: Mapping[str, Any] | None = None
    ) -> None:
        """Choose what happens to the images.

        Args:
            preset: see the class.
            scale: shrinking per side.
            parameters: of the preset `fixed`, as :func:`rasr.degradation.parameters.parse_parameters`
                reads them: a `parameters` entry of the record that `python -m rasr.tools degrade` writes.
        """
        if preset not in PRESETS:
            raise RasrError(f"degradation preset {preset!r} is unknown; use one of {', '.join(PRESETS)}")
        if (parameters is not None) != (preset == "fixed"):
            raise RasrError(
                f"degradation preset={preset} with parameters={parameters}: "
                "give preset=fixed its parameters, and no other preset any"
            )
        super().__init__(preset, scale=scale)
        self.fixed = None if parameters is None else parse_parameters(parameters)

    def parameters_of(self, seed: int) -> SampleParameters | None:
        """Return what happens to the sample with this seed, its noise apart; None for `bicubic`."""
        if self.preset == "bicubic":
            return None
        if self.fixed is not None:
            return self.fixed
        rng = SampleRandom(seed)
        if self.preset == "mild":
            return draw_mild_parameters(rng)
        if self.preset == "range":
            return draw_range_parameters(rng)
        return draw_parameters(rng, is_sharpened=self.preset == "realesrgan")

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
        size = [height // self.scale, width // self.scale]
        with torch.autocast(gt.device.type, enabled=False):  # half precision would band the smooth areas
            gt = gt.float()
            if self.preset == "bicubic":
                return quantize(F.interpolate(gt, size=size, mode="bicubic", antialias=True))
            seeds = _draw_seeds(len(gt), generator) if seeds is None else _check_seeds(seeds, gt, generator)
            # A CPU gains nothing from batches: there each sample goes alone, and comes out the same to the
            # bit in any company. On a GPU, where launches cost more than arithmetic, all go together.
            together = 1 if gt.device.type == "cpu" else len(gt)
            parts = zip(gt.split(together), torch.as_tensor(seeds).split(together), strict=True)
            return torch.cat([self._degrade(images, size, drawn.tolist()) for images, drawn in parts])

    def _degrade(self, gt: Tensor, size: list[int], seeds: list[int]) -> Tensor:
        """Degrade (B, 3, H, W) to (B, 3, *size)."""
        drawn = [self.parameters_of(seed) for seed in seeds]
        first, second = [sample.first for sample in drawn], [sample.second for sample in drawn]
        device = gt.device if gt.device.type == "cuda" else "cpu"  # others have no Poisson noise
        generators = [torch.Generator(device).manual_seed(sample_seed(seed, "noise")) for seed in seeds]
        images = list(gt)
        chosen = [i for i, sample in enumerate(drawn) if sample.is_sharpened]
        for i, image in zip(chosen, sharpen([images[i] for i in chosen]) if chosen else (), strict=True):
            images[i] = image

        # 1. first stage: blur, resize, noise, JPEG
        images = blur(images, [stage.kernel for stage in first])
        images = [
            add_noise(resize(image, stage.resize_mode, factor=stage.resize_factor), stage, generator)
            for image, stage, generator in zip(images, first, generators, strict=True)
        ]
        images = jpeg(images, [stage.jpeg_quality for stage in first])

        # 2. second stage: blur, resize, noise
        images = blur(images, [stage.kernel for stage in second])
        between = [[max(1, int(side * stage.resize_factor)) for side in size] for stage in second]
        images = [
            add_noise(resize(image, stage.resize_mode, size=to), stage, generator)
            for image, stage, to, generator in zip(images, second, between, generators, strict=True)
        ]

        # 3. the final size with its sinc filter and the second JPEG, in either order
        images = jpeg(images, [None if x.is_jpeg_last else x.second.jpeg_quality for x in drawn])
        images = [resize(image, x.final_mode, size=size) for image, x in zip(images, drawn, strict=True)]
        images = blur(images, [x.final_kernel for x in drawn])
        images = [image.clamp(0, 1) for image in images]
        images = jpeg(images, [x.second.jpeg_quality if x.is_jpeg_last else None for x in drawn])
        return quantize(torch.stack(images))


def _draw_seeds(count: int, generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**63 - 1, (count,), generator=generator, dtype=torch.int64, device=device)


def _check_seeds(seeds: Tensor, gt: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is not None:
        raise ValueError("give either a generator or seeds, not both")
    if seeds.shape != gt.shape[:1]:
        raise ValueError(f"expected one seed per image, ({len(gt)},), got {tuple(seeds.shape)}")
    return seeds
