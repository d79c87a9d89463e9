"""Restores one image of any size: enlarge, pad to the size contract, run RASRNet, crop back, mend colours.

Retrieval is the caller's: give a reference image or none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rasr.checks import check_number, check_whole
from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.fusion.base import Kept, Provenance
from rasr.image_ops import cover_and_crop
from rasr.inference.canvas import Canvas
from rasr.inference.color_fix import get_color_fix
from rasr.inference.latents import crop_latents
from rasr.inference.provenance import join_provenance
from rasr.inference.tiling import run_tiled, tile_windows
from rasr.models import RASRNet

logger = logging.getLogger(__name__)


class Restorer:
    """x`scale` restoration with a RASRNet.

    Args:
        net: network, in evaluation mode.
        scale: enlargement per side (OSEDiff's `upscale`).
        conditioning_scale: strength of the references; None takes the fusion's own (`default_strength`).
        color_fix: "adain" (as OSEDiff), "wavelet" or "none", see `rasr.inference.color_fix`; None takes the
            net's own.
        process_size: side in pixels below which the network should not work, as it was trained at that size:
            an LR image with a side under `process_size // scale` is first enlarged until its short side has
            that length, and the result is brought back to `scale` times the original. OSEDiff has 512; None
            is no minimum, right for backbones that were trained at a small size.
        tile_size: side in pixels of the tiles in which larger results are restored, a multiple of the
            backbone's `size_multiple`; None never tiles. Every tile sees the whole references.
        tile_overlap: pixels that neighbouring tiles share.
        device: "cpu", "cuda", "mps", or "auto" for the best that is there.
    """

    def __init__(
        self,
        net: RASRNet,
        *,
        scale: int = 4,
        conditioning_scale: float | None = None,
        color_fix: str | None = None,
        process_size: int | None = None,
        tile_size: int | None = 512,
        tile_overlap: int = 64,
        device: str = "auto",
    ) -> None:
        if conditioning_scale is None:
            conditioning_scale = 0.5 if net.fusion is None else net.fusion.default_strength
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
        ref: Tensor | Kept | Sequence[Tensor | Kept] | None = None,
        *,
        prompt: str = "",
        traced: list[Provenance] | None = None,
    ) -> Tensor:
        """Restores one image.

        Args:
            lq: (3, h, w) in [0, 1], any size from 1x1.
            ref: a reference (3, H, W) in [0, 1] of any size, what `keep` gave of one, or a list of such; None
                restores with the backbone alone.
            prompt: text for the backbone.
            traced: gets a `Provenance` of the whole result appended, if the fusion can tell.

        Returns:
            sr: (3, scale * h, scale * w) in [0, 1], float32, on the CPU.

        Raises:
            RasrError: more references than the fusion can take together, or a net without a fusion.
        """
        refs = [] if ref is None else [ref] if isinstance(ref, Tensor | Mapping) else list(ref)
        self.check_references(len(refs))

        # 1. size
        lq = lq[None].to(self.device)
        multiple = self.net.backbone.size_multiple
        canvas = Canvas.of(lq, scale=self.scale, process_size=self.process_size, multiple=multiple)
        tile = max(canvas.padded.shape) if self.tile_size is None else self.tile_size

        # 2. references, once for all tiles
        prepared = [self._prepare(each, canvas, tile) for each in refs] if self.conditioning_scale else []

        # 3. network
        maps: list[Provenance | None] = []

        def run(lq_up: Tensor) -> Tensor:
            fused = self.net.restore(
                lq_up, prepared or None, prompt=[prompt], conditioning_scale=self.conditioning_scale
            )
            maps.append(fused.provenance)
            return fused.sr

        sr = run_tiled(run, canvas.padded, tile=tile, overlap=self.tile_overlap)
        if traced is not None and maps[0] is not None:
            windows = tile_windows(tuple(canvas.padded.shape[-2:]), tile=tile, overlap=self.tile_overlap)
            traced.append(join_provenance(maps, windows, tuple(canvas.lq_up.shape[-2:])))

        # 4. colours and size of the result
        return canvas.finish(sr, self.color_fix)

    @torch.inference_mode()
    def keep(self, ref: Tensor) -> Kept:
        """What can be kept of a reference (3, H, W), whatever photograph it will serve; on the CPU."""
        self.check_references(1)
        kept = self.net.fusion.keep(self.net.backbone, ref[None].to(self.device))
        return {name: tensor.cpu() for name, tensor in kept.items()}

    def check_references(self, count: int) -> None:
        """Raises a RasrError unless the net can take so many references together."""
        if count and self.net.fusion is None:
            raise RasrError("these weights have no reference fusion; restore without a reference")
        most = self.net.fusion.max_references if count else None
        if most is not None and count > most:
            raise RasrError(
                f"references={count}: fusion={self.net.fusion.name} takes {most}; give "
                "fusion=correspondence, or add method=refir"
            )

    def _prepare(self, ref: Tensor | Kept, canvas: Canvas, tile: int) -> Any:
        fusion, size = self.net.fusion, tuple(canvas.padded.shape[-2:])
        if isinstance(ref, Mapping):
            ref = {name: tensor.to(self.device) for name, tensor in ref.items()}
            if not fusion.keeps_any_size:
                ref = {name: crop_latents(kept, tile_shape(size, tile)) for name, kept in ref.items()}
            return self.net.prepare(ref)
        ref = ref[None].to(self.device)
        if not fusion.keeps_any_size:
            return self.net.prepare(cover_and_crop(ref, tile_shape(size, tile)))
        return self.net.prepare(fusion.keep(self.net.backbone, ref, canvas=size))


def tile_shape(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """(H, W) of the tiles of a canvas."""
    return min(tile, size[0]), min(tile, size[1])


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
