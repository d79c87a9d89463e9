"""How references enter a restoration: the one seam between networks and references.

A fusion is one file here and one entry of `rasr.fusion.registry`. It may act at two places of RASRNet's
forward, between the UNet's halves (`inject`) and on the decoded image (`fuse`); what it does not override
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from rasr.models.backbone import OneStepBackbone
    from rasr.models.unet_passes import EncoderOutput

Kept = dict[str, Tensor]
"""What a fusion keeps of a batch of references, (B, ...) tensors by name: a function of them alone."""


@dataclass(frozen=True)
class Restoration:
    """The backbone's result without a reference, and what it was made of."""

    lq_up: Tensor
    """(B, 3, H, W): the enlarged photograph."""
    sr: Tensor
    """(B, 3, H, W) in [0, 1]: the restored photograph."""
    x0: Tensor
    """(B, C, h, w): its latents."""
    features: tuple[Tensor, ...]
    """Outputs of the UNet decoder's blocks, first (coarsest) to last."""


@dataclass(frozen=True)
class Provenance:
    """Where the detail of a result comes from; one position per patch of the image."""

    strength: Tensor
    """(B, h, w) in [0, 1]: how far the reference was followed."""
    reference: Tensor
    """(B, h, w), int64: number of the reference."""
    place: Tensor
    """(B, 2, h, w): the place (x, y) in that reference, as a share of its width and height."""


@dataclass(frozen=True)
class Fused:
    """A fusion's result."""

    sr: Tensor
    """(B, 3, H, W) in [0, 1]."""
    provenance: Provenance | None = None
    """None where a fusion cannot say."""


class ReferenceFusion(nn.Module):
    """Base of all fusions.

    Everything is given the backbone: a fusion owns only what it has learnt.
    """

    name: str = ""
    """Under which the registry, configuration and weight files know it."""
    default_strength: float = 1.0
    """`conditioning_scale` at inference where none is given."""
    max_references: int | None = None
    """How many references it can use together; None is any number."""
    text_blocks: tuple[int, ...] | None = None
    """Decoder blocks that keep text where a reference is given; None is all."""
    keeps_any_size: bool = False
    """Whether references keep their own size and aspect; else they are cut to the photograph's canvas."""

    acts_on_image: bool = False
    """Whether `fuse` does something; the decoder's block outputs are collected only then."""

    @classmethod
    def from_backbone(cls, backbone: OneStepBackbone, **settings: Any) -> ReferenceFusion:
        """A fresh one that fits a backbone; a RasrError names a setting that it does not know."""
        raise NotImplementedError

    @property
    def is_attached(self) -> bool:
        """Whether `attach` has been called, or need not be."""
        return True

    def attach(self, backbone: OneStepBackbone) -> None:
        """Takes from the backbone what does not change; called once, when the net is put together."""

    def keep(self, backbone: OneStepBackbone, ref: Tensor, *, canvas: tuple[int, int] | None = None) -> Kept:
        """What depends on references (B, 3, H, W) alone, and is worth being stored.

        Args:
            backbone: the net's.
            ref: the references.
            canvas: (H, W) of the photograph they will serve; None is any: what is stored is made so.
        """
        raise NotImplementedError

    def fingerprinted(self, backbone: OneStepBackbone) -> list[nn.Module]:
        """The networks on which `keep`'s result depends: what was kept by others is of no use."""
        raise NotImplementedError

    def prepare(self, backbone: OneStepBackbone, kept: Kept) -> Any:
        """What can be made of `keep`'s result once for all tiles of a photograph; it is not stored."""
        return kept

    def inject(
        self,
        backbone: OneStepBackbone,
        encoded: EncoderOutput,
        prepared: Sequence[Any],
        strength: float | Tensor,
    ) -> EncoderOutput:
        """Changes what the UNet's encoder hands to its decoder."""
        return encoded

    def fuse(
        self,
        backbone: OneStepBackbone,
        restored: Restoration,
        prepared: Sequence[Any],
        strength: float | Tensor,
    ) -> Fused:
        """Changes the decoded image; called only if `acts_on_image`."""
        return Fused(restored.sr)

    def merge(self) -> None:
        """Folds what makes inference faster but ends training (LoRA); the default has nothing."""

    def settings(self) -> dict[str, Any]:
        """Plain values from which the registry builds it anew."""
        return {}
