"""The steps of the degradation, each on a list of images of different sizes at once.

An image is (3, H, W), RGB, [0, 1], float32, on any device. Filters and JPEG put the images on one canvas of
zeros, so that a whole batch takes a few kernel launches on a GPU, whatever sizes the random resizes gave.
"""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from scipy.fft import dct, next_fast_len
from torch import Tensor

from rasr.degradation.basicsr_compat import USMSharp, c_table, y_table
from rasr.degradation.kernels import Kernel
from rasr.degradation.parameters import ANTIALIASED, StageParameters

USM_WEIGHT = 0.5
USM_THRESHOLD = 10 / 255
JPEG_BLOCK = 8

Value = TypeVar("Value")


def quantize(image: Tensor) -> Tensor:
    """Round to the 256 levels of an 8-bit file, still in [0, 1]."""
    return (image.clamp(0, 1) * 255).round() / 255


def resize(image: Tensor, mode: str, *, factor: float | None = None, size: list[int] | None = None) -> Tensor:
    """Resize one image by a factor or to (H, W), antialiased by that mode only; at least a pixel is left."""
    if factor is not None and min(image.shape[-2:]) * factor < 1:
        factor, size = None, [max(1, int(side * factor)) for side in image.shape[-2:]]
    if mode == ANTIALIASED:
        return F.interpolate(image[None], size=size, scale_factor=factor, mode="bicubic", antialias=True)[0]
    return F.interpolate(image[None], size=size, scale_factor=factor, mode=mode)[0]


def blur(images: list[Tensor], kernels: list[Kernel | None]) -> list[Tensor]:
    """Filter every image with its kernel; None leaves it as it is."""
    return _where_given(_blur, images, kernels)


def sharpen(images: list[Tensor]) -> list[Tensor]:
    """Sharpen by unsharp masking where an image differs from its blurred self, as basicsr's USMSharp does."""
    kernels = _usm_kernel().expand(len(images), -1, -1)
    residuals = [image - soft for image, soft in zip(images, correlate(images, kernels), strict=True)]
    masks = correlate([(residual.abs() > USM_THRESHOLD).float() for residual in residuals], kernels)
    return [
        mask * (image + USM_WEIGHT * residual).clamp(0, 1) + (1 - mask) * image
        for image, residual, mask in zip(images, residuals, masks, strict=True)
    ]


def correlate(images: list[Tensor], kernels: Tensor) -> list[Tensor]:
    """Filter with kernels (B, k, k), the edges mirrored, by FFT: for 21x21 the fastest way, on a CPU too."""
    radius = kernels.shape[-1] // 2
    padded = [_mirror_edges(image, radius) for image in images]
    # The far side of the canvas stays clear of every result: nothing wraps around into the image.
    size = [next_fast_len(side, real=True) for side in _largest_size(padded)]
    spectra = torch.fft.rfft2(kernels.to(images[0].device, non_blocking=True), s=size).conj()[:, None]
    filtered = torch.fft.irfft2(torch.fft.rfft2(_on_canvas(padded, size)) * spectra, s=size)
    return _crop_like(filtered, images)


def add_noise(image: Tensor, stage: StageParameters, generator: torch.Generator) -> Tensor:
    """Add the stage's noise to one image, clamped to [0, 1]; the generator's device draws it."""
    if stage.is_gaussian:
        shape = (1 if stage.is_gray else 3, *image.shape[-2:])
        noise = torch.randn(shape, generator=generator, device=generator.device).to(image.device)
        return (image + noise * (stage.noise_level / 255)).clamp(0, 1)
    exposed = image
    if stage.is_gray:
        red, green, blue = image
        exposed = (0.2989 * red + 0.587 * green + 0.114 * blue)[None]
    exposed = quantize(exposed)
    photons = _photons_at_white(exposed)
    expected = (exposed * photons).to(generator.device)
    counts = torch.poisson(expected, generator=generator).to(image.device)
    return (image + (counts / photons - exposed) * stage.noise_level).clamp(0, 1)


def jpeg(images: list[Tensor], qualities: list[float | None]) -> list[Tensor]:
    """Compress to JPEG (4:2:0) and back; None leaves an image as it is.

    The arithmetic is that of basicsr's DiffJPEG without its differentiable rounding: qualities need not be
    whole, and the edges are padded with black.
    """
    return _where_given(_jpeg, images, qualities)


def _where_given(
    step: Callable[[list[Tensor], list[Value]], list[Tensor]],
    images: list[Tensor],
    values: list[Value | None],
) -> list[Tensor]:
    """Do a step on the images whose value is not None."""
    chosen = [index for index, value in enumerate(values) if value is not None]
    result = list(images)
    if chosen:
        done = step([images[index] for index in chosen], [values[index] for index in chosen])
        for index, image in zip(chosen, done, strict=True):
            result[index] = image
    return result


def _blur(images: list[Tensor], kernels: list[Kernel]) -> list[Tensor]:
    return correlate(images, torch.stack([kernel.weights() for kernel in kernels]))


def _jpeg(images: list[Tensor], qualities: list[float]) -> list[Tensor]:
    device = images[0].device
    luma_table, chroma_table, to_ycbcr, to_rgb, _ = _jpeg_constants(device)
    factors = [50 / quality if quality < 50 else 2 - quality / 50 for quality in qualities]
    # Finer than any table of 1s: quality 100 quantises to whole numbers at least.
    factors = torch.tensor(factors).clamp(min=1e-3).view(-1, 1, 1).to(device, non_blocking=True)
    size = [side + -side % (2 * JPEG_BLOCK) for side in _largest_size(images)]

    rgb = _on_canvas(images, size) * 255
    ycbcr = torch.einsum("yc,bchw->byhw", to_ycbcr, rgb)
    luma = _quantize_blocks(ycbcr[:, :1] - 128, luma_table * factors) + 128
    chroma = _quantize_blocks(F.avg_pool2d(ycbcr[:, 1:], 2), chroma_table * factors)
    chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
    rgb = torch.einsum("cy,byhw->bchw", to_rgb, torch.cat([luma, chroma], dim=1))
    return _crop_like(rgb.clamp(0, 255) / 255, images)


def _quantize_blocks(planes: Tensor, steps: Tensor) -> Tensor:
    """Round the DCT of every 8x8 block of `planes` (B, C, H, W) to multiples of `steps` (B, 1, 64)."""
    batch, channels, height, width = planes.shape
    rows, columns = height // JPEG_BLOCK, width // JPEG_BLOCK
    transform = _jpeg_constants(planes.device)[-1]
    blocks = planes.reshape(batch, channels, rows, JPEG_BLOCK, columns, JPEG_BLOCK).transpose(3, 4)
    coefficients = blocks.reshape(batch, -1, JPEG_BLOCK**2) @ transform.T
    blocks = ((coefficients / steps).round() * steps) @ transform
    blocks = blocks.view(batch, channels, rows, columns, JPEG_BLOCK, JPEG_BLOCK).transpose(3, 4)
    return blocks.reshape(batch, channels, height, width)


@cache
def _jpeg_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Luma and chroma table (64,), RGB to YCbCr and back (3, 3), the DCT of a flattened block (64, 64)."""
    to_ycbcr = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    to_rgb = [[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]]
    one_dimension = torch.from_numpy(dct(torch.eye(JPEG_BLOCK).double().numpy(), norm="ortho", axis=0))
    transform = torch.kron(one_dimension, one_dimension)
    constants = y_table.detach().flatten(), c_table.detach().flatten(), to_ycbcr, to_rgb, transform
    return tuple(torch.as_tensor(value, dtype=torch.float32).to(device) for value in constants)


@cache
def _usm_kernel() -> Tensor:
    return USMSharp().kernel


def _photons_at_white(exposed: Tensor) -> Tensor:
    """Guess the photons at full white as scikit-image does: the power of two above the levels in use.

    Counted without bringing anything to the CPU.
    """
    levels = (exposed * 255).round().long().flatten()
    used = torch.zeros(256, device=exposed.device).scatter_(0, levels, 1.0).sum()
    exponent = torch.frexp(used - 0.5).exponent  # exact, unlike a logarithm
    return torch.ldexp(torch.ones_like(used), exponent)


def _mirror_edges(image: Tensor, radius: int) -> Tensor:
    """Pad by `radius`: mirrored as far as the image goes, then repeated."""
    height, width = image.shape[-2:]
    mirrored_y, mirrored_x = min(radius, height - 1), min(radius, width - 1)
    image = F.pad(image, (mirrored_x, mirrored_x, mirrored_y, mirrored_y), mode="reflect")
    rest_y, rest_x = radius - mirrored_y, radius - mirrored_x
    if rest_y or rest_x:
        image = F.pad(image, (rest_x, rest_x, rest_y, rest_y), mode="replicate")
    return image


def _largest_size(images: list[Tensor]) -> list[int]:
    return [max(image.shape[dim] for image in images) for dim in (-2, -1)]


def _on_canvas(images: list[Tensor], size: list[int]) -> Tensor:
    """Stack images at the top left of (B, 3, *size), zeros around them."""
    height, width = size
    padded = [F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2])) for image in images]
    return torch.stack(padded)


def _crop_like(batch: Tensor, images: list[Tensor]) -> list[Tensor]:
    return [
        result[..., : image.shape[-2], : image.shape[-1]] for result, image in zip(batch, images, strict=True)
    ]
