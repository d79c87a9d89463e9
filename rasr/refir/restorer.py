"""ReFIR for an image of any size: sizes, tiles and colours as `rasr.inference.Restorer` has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rasr.checks import check_whole
from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.inference.canvas import Canvas
from rasr.inference.color_fix import get_color_fix
from rasr.inference.restorer import check_sizes
from rasr.inference.tiling import run_tiled
from rasr.refir.bank import ReferenceBank
from rasr.refir.bank_store import BankStore
from rasr.refir.canvas import fit_reference, shared_canvas
from rasr.refir.chains import ChainAdapter, NoiseSource, Source, record_source, run_target
from rasr.refir.config import InjectionConfig
from rasr.refir.injector import ReferenceInjector
from rasr.refir.one_step import OneStepChain
from rasr.refir.references import Reference


class ReFIRRestorer:
    """x`scale` restoration with references that are injected without training (ReFIR).

    Args:
        chain: the restoration model.
        config: how references are injected.
        scale: enlargement per side.
        color_fix: "adain", "wavelet" or "none", see `rasr.inference.color_fix`; None takes the chain's own.
        process_size: see `rasr.inference.Restorer`.
        tile_size: side in pixels of the tiles in which larger results are restored; None never tiles. Gates
            and statistics are then those of a tile, and a multi-step chain runs its references for every
            tile.
        tile_overlap: pixels that neighbouring tiles share.
        device: "cpu", "cuda", "mps", or "auto" for the best that is there.
        ref_size: longer references are shrunk to this long side; None never shrinks.
        seed: noise of multi-step chains, anew for every image.
        use_branch: run the trained branch of the weights too, with the first reference (one-step chains).
        banks: kept banks, used and added to (one-step chains with `canvas="own"`).
    """

    def __init__(
        self,
        chain: ChainAdapter,
        config: InjectionConfig,
        *,
        scale: int = 4,
        color_fix: str | None = None,
        process_size: int | None = None,
        tile_size: int | None = 512,
        tile_overlap: int = 64,
        device: str = "auto",
        ref_size: int | None = 512,
        seed: int = 0,
        use_branch: bool = False,
        banks: BankStore | None = None,
    ) -> None:
        multiple = chain.size_multiple
        check_sizes(
            multiple,
            scale=scale,
            process_size=process_size,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
        )
        if ref_size is not None:
            check_whole("method.ref_size", ref_size, least=1)
            if ref_size < multiple:
                raise RasrError(f"method.ref_size={ref_size} is below {multiple}, the least the model takes")
        if use_branch and not isinstance(chain, OneStepChain):
            raise RasrError("method.use_branch=true: only the one-step backbone has a trained branch")
        if banks is not None and (chain.n_steps > 1 or config.canvas == "shared"):
            raise RasrError(
                "method.banks: kept banks need a one-step model and refir.canvas=own, else they depend on "
                "the photograph; leave method.banks out"
            )
        self.device = resolve_device(device)
        self.chain = chain.to(self.device)
        self.config = config
        self.scale = scale
        self.color_fix = get_color_fix(chain.color_fix if color_fix is None else color_fix)
        self.process_size = process_size
        self.tile_size = tile_size
        self.tile_overlap = tile_overlap
        self.ref_size = ref_size
        self.seed = seed
        self.use_branch = use_branch
        self.banks = banks

    @torch.inference_mode()
    def restore(self, lq: Tensor, references: Sequence[Reference] = (), *, prompt: str = "") -> Tensor:
        """Restores one image.

        Args:
            lq: (3, h, w) in [0, 1], any size from 1x1.
            references: any number, of any size; their weights sum to 1. None at all is the model alone.
            prompt: text of the target; every reference has its own.

        Returns:
            sr: (3, scale * h, scale * w) in [0, 1], float32, on the CPU.
        """
        # 1. size
        lq = lq[None].to(self.device)
        multiple = self.chain.size_multiple
        canvas = Canvas.of(lq, scale=self.scale, process_size=self.process_size, multiple=multiple)
        tile = max(canvas.padded.shape) if self.tile_size is None else self.tile_size
        features = None
        if self.use_branch and references:
            tile_shape = tuple(min(tile, side) for side in canvas.padded.shape[-2:])
            features = self.chain.branch_features(references[0].read()[None].to(self.device), tile_shape)

        if self.config.scale == 0 and self.config.canvas == "own":
            references = ()

        # 2. network, tile by tile
        with ReferenceInjector(self.chain.unet, self.config) as injector:
            banks = self._record(injector, references)

            def run(lq_up: Tensor) -> Tensor:
                return self._restore_tile(injector, lq_up, references, banks, prompt, features)

            sr = run_tiled(run, canvas.padded, tile=tile, overlap=self.tile_overlap)

        # 3. colours and size of the result
        return canvas.finish(sr, self.color_fix)

    @torch.inference_mode()
    def keep(self, reference: Reference) -> ReferenceBank:
        """The bank of one reference of a one-step chain: from the kept ones, or made and kept."""
        with ReferenceInjector(self.chain.unet, self.config) as injector:
            return self._bank(injector, reference)

    def _record(self, injector: ReferenceInjector, references: Sequence[Reference]) -> list[ReferenceBank]:
        """Banks that serve all tiles: those of a one-step chain whose references keep their own canvas."""
        if self.chain.n_steps > 1 or self.config.canvas == "shared":
            return []
        return [self._bank(injector, reference).with_weight(reference.weight) for reference in references]

    def _bank(self, injector: ReferenceInjector, reference: Reference) -> ReferenceBank:
        key = reference.key
        if self.banks is not None and key is not None:
            kept = self.banks.get(key, reference.prompt)
            if kept is not None:
                return kept
        image = reference.read()[None].to(self.device)
        image = fit_reference(image, self.chain.size_multiple, self.ref_size)
        noise = NoiseSource(self.seed, (0, 0))
        bank = record_source(self.chain, injector, self.chain.prepare(image, reference.prompt, noise))
        if self.banks is not None and key is not None:
            self.banks.put(key, reference.prompt, bank)
        return bank

    def _restore_tile(
        self,
        injector: ReferenceInjector,
        lq_up: Tensor,
        references: Sequence[Reference],
        banks: Sequence[ReferenceBank],
        prompt: str,
        features: Any,
    ) -> Tensor:
        """(1, 3, H, W) -> (1, 3, H, W), with `banks`, or with chains of the references alongside."""
        size = lq_up.shape[-2:]
        lq_up, images = (lq_up, []) if banks else self._images(lq_up, references)
        noises = self._noises([image.shape[-2:] for image in (lq_up, *images)])
        extra = {} if features is None else {"features": features}
        target = self.chain.prepare(lq_up, prompt, noises[0], **extra)
        sources = [
            Source(self.chain.prepare(image, reference.prompt, noise), reference.weight)
            for image, reference, noise in zip(images, references, noises[1:], strict=False)
        ]
        target = run_target(self.chain, injector, target, sources=sources, banks=banks)
        return self.chain.decode(target)[..., : size[0], : size[1]]

    def _images(self, lq_up: Tensor, references: Sequence[Reference]) -> tuple[Tensor, list[Tensor]]:
        """The target and the references at the sizes at which they run."""
        images = [reference.read()[None].to(self.device) for reference in references]
        multiple = self.chain.size_multiple
        if self.config.canvas == "own" or not images:
            return lq_up, [fit_reference(image, multiple, self.ref_size) for image in images]
        if len(images) > 1:
            raise RasrError(
                "refir.canvas=shared takes one reference, as the official code; give references=1"
            )
        lq_up, image = shared_canvas(lq_up, images[0], multiple).split(1)
        return lq_up, [image]

    def _noises(self, shapes: Sequence[tuple[int, int]]) -> list[NoiseSource]:
        """One source per chain: seeds of their own, or one noise for all (`config.share_noise`)."""
        factor = self.chain.vae_factor
        if self.config.share_noise:
            largest = tuple(max(sides) // factor for sides in zip(*shapes, strict=True))
            return [NoiseSource(self.seed, largest) for _ in shapes]
        return [
            NoiseSource(self.seed + n, (height // factor, width // factor))
            for n, (height, width) in enumerate(shapes)
        ]
