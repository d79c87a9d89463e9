"""Restores one image of any size: enlarge, pad to the size contract, run RASRNet, crop back, mend colours.

Retrieval is the caller's: give a reference image or none.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from rasr.checks import check_number, check_whole
from rasr.errors import RasrError
from rasr.image_ops import cover_and_crop
from rasr.inference.canvas import Canvas
from rasr.inference.color_fix import get_color_fix
from rasr.inference.latents import crop_latents
from rasr.inference.tiling import run_tiled
from rasr.models import RASRNet

logger = logging.getLogger(__name__)


class Restorer:
    """x`scale` restoration with a RASRNet.

    Args:
        net: network, in evaluation mode.
        scale: enlargement per side (OSEDiff's `upscale`).
        conditioning_scale: strength of the reference, w in Eq. 6 (paper at inference: 0.5).
        color_fix: "adain" (as OSEDiff), "wavelet" or "none", see `rasr.inference.color_fix`; None takes the
            net's own.
        process_size: side in pixels below which the network should not work, as it was trained at that size:
            an LR image with a side under `process_size // scale` is first enlarged until its short side has
            that length, and the result is brought back to `scale` times the original. OSEDiff has 512; None
            is no minimum, right for backbones that were trained at a small size.
        tile_size: side in pixels of the tiles in which larger results are restored, a multiple of the
            backbone's `size_multiple`; None never tiles. Every tile sees the whole reference.
        tile_overlap: pixels that neighbouring tiles share.
        device: "cpu", "cuda", "mps", or "auto" for the best that is there.
    """

    def __init__(
        self,
        net: RASRNet,
        *,
        scale: int = 4,
        conditioning_scale: float = 0.5,
        color_fix: str | None = None,
        process_size: int | None = None,
        tile_size: int | None = 512,
        tile_overlap: int = 64,
        device: str = "auto",
    ) -> None:
        check_number("conditioning_scale", conditioning_scale)
        check_sizes(
            net.backbone.size_multiple,
            scale=scale,
            process_size=process_size,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
        )
        config = getattr(net, "config", None)
        if config is not None and config.scale != scale:
            logger.warning("these weights were trained for scale=%d, not %d", config.scale, scale)
        self.tile_size = tile_size
        self.tile_overlap = tile_overlap
        self.scale = scale
        self.conditioning_scale = conditioning_scale
        self.color_fix = get_color_fix(net.color_fix if color_fix is None else color_fix)
        self.process_size = process_size
        self.device = resolve_device(device)
        self.net = net.to(self.device).eval()

    @torch.inference_mode()
    def restore(
        self,
        lq: Tensor,
        ref: Tensor | None = None,
        *,
        ref_latents: Tensor | None = None,
        prompt: str = "",
    ) -> Tensor:
        """Restores one image.

        Args:
            lq: (3, h, w) in [0, 1], any size from 1x1.
            ref: (3, H, W) in [0, 1], any size; None restores with the backbone alone. It is scaled to cover
                the padded canvas (or a tile) and its centre is cut out, so nothing of it is distorted.
            ref_latents: (1, C, H/f, W/f) kept latents of the reference (`ReferenceLatents`) instead of `ref`.
                At the size of the canvas they give what `ref` gives, at another one its resized features.
            prompt: text for the backbone.

        Returns:
            sr: (3, scale * h, scale * w) in [0, 1], float32, on the CPU.
        """
        # 1. size
        lq = lq[None].to(self.device)
        multiple = self.net.backbone.size_multiple
        canvas = Canvas.of(lq, scale=self.scale, process_size=self.process_size, multiple=multiple)
        tile = max(canvas.padded.shape) if self.tile_size is None else self.tile_size
        features = None
        tile_shape = tuple(min(tile, side) for side in canvas.padded.shape[-2:])
        if ref_latents is not None:
            ref_latents = crop_latents(ref_latents.to(self.device), tile_shape)
            features = self.net.branch.features_from_latents(ref_latents)
        elif ref is not None:
            features = self.net.branch.features(cover_and_crop(ref[None].to(self.device), tile_shape))

        # 2. network, with the reference's features for every tile
        def run(lq_up: Tensor) -> Tensor:
            return self.net(lq_up, features, prompt=[prompt], conditioning_scale=self.conditioning_scale)

        sr = run_tiled(run, canvas.padded, tile=tile, overlap=self.tile_overlap)

        # 3. colours and size of the result
        return canvas.finish(sr, self.color_fix)


def check_sizes(
    multiple: int, *, scale: int, process_size: int | None, tile_size: int | None, tile_overlap: int
) -> None:
    """Raises a RasrError unless sizes that users give fit each other and the backbone's `size_multiple`."""
    check_whole("scale", scale, least=1)
    if process_size is not None:
        check_whole("process_size", process_size, least=1)
        if process_size < scale:
            raise RasrError(
                f"process_size={process_size} is below scale={scale}; give the side at which the backbone "
                "was trained (512 for SD-2.1), or null for no minimum"
            )
    if tile_size is not None:
        check_whole("tile_size", tile_size, least=1)
        check_whole("tile_overlap", tile_overlap, least=0)
        if tile_size % multiple or tile_overlap >= tile_size:
            raise RasrError(
                f"tile_size={tile_size}, tile_overlap={tile_overlap} do not fit; give a multiple of "
                f"{multiple} and less overlap than that"
            )


def resolve_device(device: str) -> torch.device:
    """ "auto" -> CUDA, else MPS, else CPU; any other name is taken as it is."""
    if device != "auto":
        try:
            resolved = torch.device(device)
        except RuntimeError as error:
            raise RasrError(f"device={device!r} is unknown; give auto, cpu, cuda or mps") from error
        if resolved.type == "cuda" and not torch.cuda.is_available():
            raise RasrError(f"device={device} but no CUDA device is visible; give device=auto or device=cpu")
        return resolved
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
