"""How references enter a restoration: the one seam between networks and references.

A fusion is one file here and one yaml in `conf/model/`; `rasr.fusion.registry` knows it by its name. It may
act at three places of RASRNet's forward: inside the UNet's layers (`watching`), between the UNet's halves
(`inject`) and on the decoded image (`fuse`); what it does not override changes nothing. At strength 0, and
without references, every fusion equals the backbone bit for bit: the net doesn't ask it then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rasr.fusion.provenance import Provenance

if TYPE_CHECKING:
    from rasr.backbones.one_step import OneStepBackbone
    from rasr.backbones.unet_passes import EncoderOutput
    from rasr.config.net import RASRNetConfig

Kept = dict[str, Tensor]
"""What a fusion keeps of a batch of references, (B, ...) tensors by name: a function of them alone."""


@dataclass(frozen=True)
class ReferenceUse:
    """What a reference will serve, and its own text and share."""

    canvas: tuple[int, int] | None = None
    """(H, W) of the photograph; None is any: what is stored is made so."""
    tile: tuple[int, int] | None = None
    """(H, W) in which the photograph passes the net, for fusions that cut a reference to it."""
    prompt: str = ""
    """The reference's text, for fusions in which it passes the UNet with it."""
    weight: float = 1.0
    """a_n, its share among several (`rasr.references.Reference.weight`)."""


ANY_USE = ReferenceUse()


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
    file_name: str = ""
    """Its file in a folder of weights; `register_fusion` fills in the name's own."""
    file_prefix: str = "fusion."
    """What stands before its tensors' names in weight files."""
    default_strength: float = 1.0
    """`conditioning_scale` at inference where none is given."""
    max_references: int | None = None
    """How many references it can use together; None is any number."""
    text_blocks: tuple[int, ...] | None = None
    """Decoder blocks that keep text where a reference is given; None is all."""
    keeps_any_size: bool = False
    """Whether references keep their own size and aspect; else they are cut to the photograph's tiles, and
    what is stored of them is made of a square."""
    acts_on_image: bool = False
    """Whether `fuse` does something; the decoder's block outputs are collected only then."""
    can_be_kept: bool = True
    """Whether what `keep` makes may serve other photographs too."""
    copies_base_weights: bool = False
    """Whether it starts from the backbone's base weights: it is then built before OSEDiff's are merged."""

    # Building

    @classmethod
    def check_config(cls, config: RASRNetConfig) -> None:
        """Raises a RasrError where settings cannot be meant, before anything is loaded."""

    @classmethod
    def from_config(cls, backbone: OneStepBackbone, config: RASRNetConfig) -> ReferenceFusion:
        """A fresh one over a backbone, by the net's configuration."""
        # Shrunk as much as the photographs are: descriptors must see the same condition.
        return cls.from_backbone(backbone, **({"scale": config.scale} | config.fusion_settings))

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

    def settings(self) -> dict[str, Any]:
        """Plain values from which the registry builds it anew."""
        return {}

    def merge(self) -> None:
        """Folds what makes inference faster but ends training (LoRA); the default has nothing."""

    def check_can_be_saved(self) -> None:
        """Raises a ValueError unless it still has what training changed, apart from the rest."""
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("nothing of this net's fusion is trainable, so there is nothing to be saved")

    # References

    def keep(self, backbone: OneStepBackbone, ref: Tensor, use: ReferenceUse = ANY_USE) -> Kept:
        """What depends on references (B, 3, H, W), any size, alone, and is worth being stored."""
        raise NotImplementedError

    def to_disk(self, kept: Kept) -> Kept:
        """`keep`'s result as it is stored."""
        return kept

    def from_disk(self, kept: Kept, tile: tuple[int, int]) -> Kept:
        """What was stored, for tiles (H, W) of a photograph."""
        return kept

    def kept_variant(self, backbone: OneStepBackbone, prompt: str) -> str:
        """Ends the name of a kept file, where besides the image other things decide what is in it."""
        return ""

    def fingerprint(self, backbone: OneStepBackbone) -> str:
        """Short hash of all networks and settings on which `keep`'s result depends.

        What was kept by others is of no use. fp32 and bf16 copies of a net have the same.
        """
        digest = hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode())
        for part in self.fingerprinted(backbone):
            add_weights(digest, part)
        return digest.hexdigest()[:16]

    def fingerprinted(self, backbone: OneStepBackbone) -> list[nn.Module]:
        """The networks on which `keep`'s result depends."""
        raise NotImplementedError

    # Restoring

    def prepare(self, backbone: OneStepBackbone, kept: Kept, weight: float = 1.0) -> Any:
        """What can be made of `keep`'s result once for all tiles of a photograph; it is not stored.

        Args:
            backbone: the net's.
            kept: of one reference.
            weight: its share among several (`rasr.references.Reference.weight`); a fusion that chooses for
                itself does not read it.
        """
        return kept

    def watching(
        self, backbone: OneStepBackbone, prepared: Sequence[Any], strength: float | Tensor
    ) -> AbstractContextManager[Any]:
        """Entered while the UNet sees the photograph: for fusions that act inside its layers."""
        return nullcontext()

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


def add_weights(digest: hashlib._Hash, part: nn.Module, prefixes: tuple[str, ...] = ("",)) -> None:
    """Adds the tensors of a network whose names begin with one of `prefixes`, compared in bf16."""
    for name, tensor in sorted(part.state_dict().items()):
        if name.startswith(prefixes):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().bfloat16().contiguous().view(torch.uint8).numpy().tobytes())
