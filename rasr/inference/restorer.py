"""Restores one image of any size: enlarge, pad to the size contract, run the net, crop back, mend colours.

Retrieval is the caller's: give references or none. How they enter is the net's: its fusion.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from rasr.checks import check_number, check_whole
from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.fusion.base import Fused, Kept, Provenance, ReferenceUse
from rasr.inference.canvas import Canvas
from rasr.inference.color_fix import get_color_fix
from rasr.inference.provenance import join_provenance
from rasr.inference.tiling import run_tiled, tile_windows
from rasr.references import KeptReferences, Reference

logger = logging.getLogger(__name__)


class RestorationNet(Protocol):
    """What a `Restorer` needs of a net: `RASRNet`, or `rasr.refir.ChainNet` over a multi-step model."""

    size_multiple: int
    """Sides of every image must be multiples of this."""
    color_fix: str
    """Colour fix where none is asked for."""
    default_strength: float
    """`conditioning_scale` where none is given."""

    def check_references(self, count: int) -> None:
        """Raises a RasrError unless it can take so many together."""

    def prepare_for(self, ref: Any, use: ReferenceUse) -> Any:
        """A reference (1, 3, H, W), or what was kept of it, prepared for all tiles of a photograph."""

    def restore(self, lq_up: Tensor, ref: Any, *, prompt: Sequence[str], conditioning_scale: float) -> Fused:
        """(1, 3, H, W) -> (1, 3, H, W), with a list of prepared references or None."""


class Restorer:
    """x`scale` restoration with a net.

    Args:
        net: `RASRNet`, or anything else that is a `RestorationNet`.
        scale: enlargement per side (OSEDiff's `upscale`).
        conditioning_scale: strength of the references; None takes the net's own (`default_strength`).
        color_fix: "adain" (as OSEDiff), "wavelet" or "none", see `rasr.inference.color_fix`; None takes the
            net's own.
        process_size: side in pixels below which the network should not work, as it was trained at that size:
            an LR image with a side under `process_size // scale` is first enlarged until its short side has
            that length, and the result is brought back to `scale` times the original. OSEDiff has 512; None
            is no minimum, right for backbones that were trained at a small size.
        tile_size: side in pixels of the tiles in which larger results are restored, a multiple of the
            net's `size_multiple`; None never tiles. Every tile sees the whole references. (ReFIR's gates and
            statistics are those of a tile, and a multi-step chain runs its references for every tile.)
        tile_overlap: pixels that neighbouring tiles share.
        device: "cpu", "cuda", "mps", or "auto" for the best that is there.
        kept: references that need not be computed again.
    """

    def __init__(
        self,
        net: Any,
        *,
        scale: int = 4,
        conditioning_scale: float | None = None,
        color_fix: str | None = None,
        process_size: int | None = None,
        tile_size: int | None = 512,
        tile_overlap: int = 64,
        device: str = "auto",
        kept: KeptReferences | None = None,
    ) -> None:
        if conditioning_scale is None:
            conditioning_scale = net.default_strength
        check_number("conditioning_scale", conditioning_scale)
        check_sizes(
            net.size_multiple,
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
        self.kept = kept
        self._kept_of = lru_cache(maxsize=8)(self._read_kept)  # one for many photographs is read once

    @torch.inference_mode()
    def restore(
        self,
        lq: Tensor,
        ref: Tensor | Kept | Reference | Sequence[Tensor | Kept | Reference] | None = None,
        *,
        prompt: str = "",
        traced: list[Provenance] | None = None,
    ) -> Tensor:
        """Restores one image.

        Args:
            lq: (3, h, w) in [0, 1], any size from 1x1.
            ref: a reference: an image (3, H, W) in [0, 1] of any size, a `Reference`, or what `keep` gave of
                one; or a list of such; None restores with the backbone alone.
            prompt: text for the backbone.
            traced: gets a `Provenance` of the whole result appended, if the fusion can tell.

        Returns:
            sr: (3, scale * h, scale * w) in [0, 1], float32, on the CPU.

        Raises:
            RasrError: more references than the fusion can take together, or a net without a fusion.
        """
        refs = [] if ref is None else [ref] if isinstance(ref, Tensor | Mapping | Reference) else list(ref)
        self.net.check_references(len(refs))

        # 1. size
        lq = lq[None].to(self.device)
        canvas = Canvas.of(
            lq, scale=self.scale, process_size=self.process_size, multiple=self.net.size_multiple
        )
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
    def keep(self, ref: Tensor | Reference) -> Kept:
        """What can be kept of a reference (3, H, W), whatever photograph it will serve; on the CPU."""
        self.net.check_references(1)
        prompt = ref.prompt if isinstance(ref, Reference) else ""
        image = ref.read() if isinstance(ref, Reference) else ref
        tile = None if self.kept is None or self.kept.size is None else (self.kept.size, self.kept.size)
        use = ReferenceUse(tile=tile, prompt=prompt)
        kept = self.net.fusion.keep(self.net.backbone, image[None].to(self.device), use)
        return {name: tensor.cpu() for name, tensor in kept.items()}

    def is_kept(self, reference: Reference) -> bool:
        """Whether a reference lies there already, and need not be computed."""
        return self.kept is not None and reference.key is not None and self.kept.file(reference).is_file()

    def _read_kept(self, reference: Reference) -> Kept | None:
        if self.kept is None or reference.key is None:
            return None
        kept = self.kept.get(reference)
        if kept is None and self.kept.size is None:  # of any size: as good for the next photograph
            kept = self.keep(reference)
            self.kept.put(reference, kept)
        return kept

    def _prepare(self, ref: Tensor | Kept | Reference, canvas: Canvas, tile: int) -> Any:
        size = tuple(canvas.padded.shape[-2:])
        use = ReferenceUse(canvas=size, tile=(min(tile, size[0]), min(tile, size[1])))
        if isinstance(ref, Reference):
            use = replace(use, prompt=ref.prompt, weight=ref.weight)
            ref = self._kept_of(ref) or ref.read()
        if isinstance(ref, Mapping):
            ref = {name: tensor.to(self.device) for name, tensor in ref.items()}
        else:
            ref = ref[None].to(self.device)
        return self.net.prepare_for(ref, use)


def check_sizes(
    multiple: int, *, scale: int, process_size: int | None, tile_size: int | None, tile_overlap: int
) -> None:
    """Raises a RasrError unless sizes that users give fit each other and the net's `size_multiple`."""
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
