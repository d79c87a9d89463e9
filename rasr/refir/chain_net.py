"""A restoration chain with ReFIR's references, as a net that `rasr.inference.Restorer` takes.

For what is no fusion of a one-step backbone: multi-step chains, whose references run alongside, and the
shared canvas of the official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rasr.checks import check_whole
from rasr.config.injection import InjectionConfig
from rasr.errors import RasrError
from rasr.fusion.attention.injector import ReferenceInjector
from rasr.fusion.base import Fused, ReferenceUse
from rasr.fusion.injection import fit_reference
from rasr.refir.canvas import shared_canvas
from rasr.refir.chains import ChainAdapter, NoiseSource, Source, run_target


@dataclass(frozen=True)
class ChainReference:
    """A reference that will run as a chain of its own."""

    image: Tensor
    """(1, 3, H, W) in [0, 1], any size."""
    prompt: str
    weight: float
    """a_n among several."""


class ChainNet:
    """Runs a chain, and references beside it, for one tile at a time.

    Args:
        chain: the restoration model.
        config: how references are injected; `conditioning_scale` is a factor on its `scale`.
        ref_size: longer references are shrunk to this long side; None never shrinks.
        seed: noise of multi-step chains, anew for every tile.
    """

    default_strength = 1.0

    def __init__(
        self, chain: ChainAdapter, config: InjectionConfig, *, ref_size: int | None = 512, seed: int = 0
    ) -> None:
        if ref_size is not None:
            check_whole("method.ref_size", ref_size, least=1)
            if ref_size < chain.size_multiple:
                raise RasrError(
                    f"method.ref_size={ref_size} is below {chain.size_multiple}, the least the model takes"
                )
        check_whole("method.seed", seed, least=0)
        self.chain, self.config = chain, config
        self.ref_size, self.seed = ref_size, seed
        self.color_fix = chain.color_fix

    @property
    def size_multiple(self) -> int:
        """See `ChainAdapter`."""
        return self.chain.size_multiple

    def to(self, device: torch.device) -> ChainNet:
        """Moves all parts."""
        self.chain = self.chain.to(device)
        return self

    def eval(self) -> ChainNet:
        """Chains are always in evaluation mode."""
        return self

    def check_references(self, count: int) -> None:
        """Raises a RasrError unless so many can be taken together."""
        if count > 1 and self.config.canvas == "shared":
            raise RasrError(
                f"references={count}: refir.canvas=shared takes one reference, as the official code; give "
                "references=1, or refir.canvas=own"
            )

    def prepare_for(self, ref: Tensor | Mapping[str, Tensor], use: ReferenceUse) -> ChainReference:
        """See `rasr.inference.restorer.RestorationNet`."""
        if not isinstance(ref, Tensor):
            raise RasrError("kept references need a one-step model and refir.canvas=own; leave kept= out")
        return ChainReference(ref, use.prompt, use.weight)

    def restore(
        self,
        lq_up: Tensor,
        ref: Sequence[ChainReference] | None = None,
        *,
        prompt: Sequence[str],
        conditioning_scale: float = 1.0,
    ) -> Fused:
        """(1, 3, H, W) -> (1, 3, H, W), with chains of the references alongside."""
        config = replace(self.config, scale=min(1.0, self.config.scale * conditioning_scale))
        references = list(ref or ())
        if config.scale == 0 and config.canvas == "own":
            references = []
        size = lq_up.shape[-2:]
        lq_up, images = self._images(lq_up, references)
        noises = self._noises([image.shape[-2:] for image in (lq_up, *images)])
        chain = self.chain
        target = chain.prepare(lq_up, prompt[0], noises[0])
        sources = [
            Source(chain.prepare(image, reference.prompt, noise), reference.weight)
            for image, reference, noise in zip(images, references, noises[1:], strict=True)
        ]
        with ReferenceInjector(chain.unet, config) as injector:
            target = run_target(chain, injector, target, sources=sources)
        return Fused(chain.decode(target)[..., : size[0], : size[1]])

    def _images(self, lq_up: Tensor, references: Sequence[ChainReference]) -> tuple[Tensor, Sequence[Tensor]]:
        """The target and the references at the sizes at which they run."""
        multiple = self.size_multiple
        if self.config.canvas == "own" or not references:
            return lq_up, [fit_reference(r.image, multiple, self.ref_size) for r in references]
        self.check_references(len(references))
        lq_up, image = shared_canvas(lq_up, references[0].image, multiple).split(1)
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
