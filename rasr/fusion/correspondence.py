"""Correspondence fusion: finds each place of the photograph in the reference, and takes its detail from
there; of several references, at each place from the one with the most confidence (`choose`).

The residual branch of the RASR paper adds the reference's features where they lie in the reference's own
picture, which is seldom where the photograph needs them. Here every place is matched first.

1. *Descriptors* (`descriptors`): a small head on the frozen backbone's decoder features. Those of the
   reference come from the reference after it was shrunk and restored as the photograph was: both then look
   alike (the trick of TTSR, Yang et al., CVPR 2020). Diffusion features match well (DIFT, Tang et al.,
   NeurIPS 2023).
2. *Matches* (`matching`): best match at half the latents' resolution, then near it at full resolution.
3. *Motion* (`motion`): single matches are noisy, neighbours move together.
4. *Transfer* (`transfer`): the reference *image* is resampled there, and a gated net takes over its detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasr.config.correspondence import CorrespondenceConfig
from rasr.errors import RasrError
from rasr.fusion.base import ANY_USE, Fused, Kept, Provenance, ReferenceFusion, ReferenceUse, Restoration
from rasr.fusion.descriptors import DescriptorHead
from rasr.fusion.matching import is_inside, match_everywhere, match_nearby, own_positions, resample
from rasr.fusion.motion import smooth_motion
from rasr.fusion.transfer import PATCH, DetailTransfer, Reliability
from rasr.image_ops import pad_to_multiple, resize_bicubic, shrink_to

if TYPE_CHECKING:
    from rasr.backbones.one_step import OneStepBackbone

COARSE_RADII = (None, 8, 3)
FINE_RADII = (None, 12, 4)
"""Windows in which the motion is fitted, in coarse and in fine tokens; None is the whole picture."""
FINE_REACH = 3
"""How far from the coarse motion the fine one is looked for, in fine tokens."""
CHOICE = 8.0
"""Among several references: how sharply the most reliable is preferred."""
DOUBT = 0.1
"""Reliability up to which nothing is taken: what matches by accident is seldom above it."""
RELATED = (0.03, 0.1)
"""Share of a photograph with matches more likely right than wrong. Up to the first value, the reference shows
something else (another building with the same windows, the same picture upside down) and gives nothing; from
the second on it gives all."""


@dataclass(frozen=True)
class Correspondence:
    """Where a photograph's tokens lie in a reference."""

    displacement: Tensor
    """(2, h, w): place in the reference minus own place, (x, y) in tokens of the latents."""
    evidence: Tensor
    """(8, h, w): cosines, masses and mutuality of the matches, agreement and trust of their neighbours, and
    whether the place lies inside the reference."""


class CorrespondenceFusion(ReferenceFusion):
    """Matches the reference to the photograph, and carries its detail to where it belongs.

    Args:
        latent_channels: of the backbone's latents.
        block_channels: outputs of its decoder's blocks.
        config: sizes.
    """

    name = "correspondence"
    keeps_any_size = True
    acts_on_image = True

    def __init__(
        self, latent_channels: int, block_channels: Sequence[int], config: CorrespondenceConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or CorrespondenceConfig()
        if len(block_channels) != 4:
            raise RasrError(
                f"a decoder of {len(block_channels)} blocks; correspondence fusion reads the 4 of an SD UNet"
            )
        self.head = DescriptorHead(
            latent_channels,
            tuple(block_channels),
            coarse_dim=self.config.coarse_dim,
            fine_dim=self.config.fine_dim,
            width=self.config.head_width,
        )
        self.reliability = Reliability()
        self.transfer = DetailTransfer(self.config.transfer_width, self.config.transfer_depth)

    @classmethod
    def from_backbone(cls, backbone: OneStepBackbone, **settings: Any) -> CorrespondenceFusion:
        """A fresh fusion that fits a backbone; `settings` are those of `CorrespondenceConfig`."""
        try:
            config = CorrespondenceConfig(**settings)
        except TypeError as error:
            known = ", ".join(asdict(CorrespondenceConfig()))
            raise RasrError(f"fusion settings: {error}; the keys are {known}") from error
        unet = backbone.unet.config
        return cls(unet.in_channels, tuple(reversed(unet.block_out_channels)), config)

    def settings(self) -> dict[str, Any]:
        """See `ReferenceFusion`."""
        return asdict(self.config)

    def fingerprinted(self, backbone: OneStepBackbone) -> list[nn.Module]:
        """See `ReferenceFusion`."""
        return [backbone.vae.encoder, backbone.unet, self.head]

    @torch.no_grad()
    def keep(self, backbone: OneStepBackbone, ref: Tensor, use: ReferenceUse = ANY_USE) -> Kept:
        """Descriptors and pixels of references (B, 3, H, W), any size and aspect.

        Args:
            backbone: the net's.
            ref: the references.
            use: a large photograph's (`canvas`) reference keeps more of its size. Every tile sees the whole
                reference, and descriptors are made without text, for the photograph's may be another.

        Returns:
            `coarse` (B, Dc, h/2, w/2) and `fine` (B, Df, h, w), float16; `image` (B, 3, H, W), uint8.
        """
        limit = max((self.config.ref_size, *(use.canvas or ())))
        ref = shrink_to(ref, limit)
        restored = backbone.features(self.degrade(backbone, ref), [""] * len(ref))
        coarse, fine = self.head(*restored)
        image = (ref.clamp(0, 1) * 255).round().byte()
        return {"coarse": coarse.half(), "fine": fine.half(), "image": image}

    def degrade(self, backbone: OneStepBackbone, ref: Tensor) -> Tensor:
        """Brings references to the photograph's condition; padded to the backbone's size multiple."""
        height, width = ref.shape[-2:]
        small = (max(1, round(height / self.config.scale)), max(1, round(width / self.config.scale)))
        return pad_to_multiple(
            resize_bicubic(resize_bicubic(ref, small), (height, width)), backbone.size_multiple
        )

    def prepare(self, backbone: OneStepBackbone, kept: Kept, weight: float = 1.0) -> Kept:
        """The kept tensors in the dtypes of the computation."""
        return {
            "coarse": kept["coarse"].float(),
            "fine": kept["fine"].float(),
            "image": kept["image"].float() / 255,
        }

    def fuse(
        self,
        backbone: OneStepBackbone,
        restored: Restoration,
        prepared: Sequence[Kept],
        strength: float | Tensor,
    ) -> Fused:
        """Takes over the references' detail; see the module.

        Args:
            backbone: the net's.
            restored: the photographs, (B, ...).
            prepared: one entry per reference, each (B, ...) or (1, ...) for the whole batch.
            strength: in [0, 1], a number or (B, 1, 1, 1).
        """
        sr = restored.sr
        coarse, fine = self.head(restored.x0, restored.features)
        found = [
            self.lay_over(coarse, fine, {k: v.expand(len(sr), *v.shape[1:]) for k, v in kept.items()}, sr)
            for kept in prepared
        ]
        warped, evidence, reliability, reference = self.choose(
            [entry[0] for entry in found], [entry[1] for entry in found]
        )
        change = self.transfer(sr, warped, evidence, reliability)
        fused = (sr + strength * change).clamp(0, 1)

        places = torch.stack([entry[2] for entry in found])
        place = places.gather(0, reference[None, :, None].expand(1, -1, 2, -1, -1))[0]
        followed = (reliability * strength).clamp(0, 1)[:, 0]
        return Fused(fused, Provenance(followed, reference, place))

    def lay_over(self, coarse: Tensor, fine: Tensor, kept: Kept, sr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One reference, resampled to where the photograph shows the same.

        Returns:
            The resampled reference (B, 3, H, W), the evidence (B, 8, H/4, W/4), and the places
            (B, 2, H/4, W/4) as shares of the reference's sides.
        """
        warped, evidence, places = [], [], []
        patches = (sr.shape[-2] // PATCH, sr.shape[-1] // PATCH)
        for b in range(len(sr)):
            image = kept["image"][b]
            factor = sr.shape[-1] // fine.shape[-1]
            match = self.correspond(coarse[b], fine[b], kept["coarse"][b], kept["fine"][b], image, factor)
            warped.append(warp(image, match.displacement, factor))
            place = own_positions(*match.displacement.shape[-2:], match.displacement) + match.displacement
            size = place.new_tensor([image.shape[-1], image.shape[-2]])[:, None, None]
            maps = torch.cat([match.evidence, (place + 0.5) * factor / size])
            if maps.shape[-2:] != patches:
                maps = F.interpolate(maps[None], patches, mode="bilinear", align_corners=False)[0]
            evidence.append(maps[:-2])
            places.append(maps[-2:].clamp(0, 1))
        return torch.stack(warped), torch.stack(evidence), torch.stack(places)

    @torch.no_grad()
    def correspond(
        self, coarse: Tensor, fine: Tensor, ref_coarse: Tensor, ref_fine: Tensor, image: Tensor, factor: int
    ) -> Correspondence:
        """Where the photograph's tokens lie in a reference.

        Args:
            coarse: (Dc, h/2, w/2) descriptors of the photograph.
            fine: (Df, h, w), likewise.
            ref_coarse: (Dc, h'/2, w'/2) of the reference.
            ref_fine: (Df, h', w'), likewise.
            image: (3, H', W'), the reference; only its size matters.
            factor: side of a token in pixels.
        """
        scale_coarse, scale_fine = self.head.scales()
        # 1. anywhere in the reference
        matches = match_everywhere(coarse, ref_coarse, scale_coarse)
        motion, _, _ = smooth_motion(matches.displacement, matches.weights(), COARSE_RADII)
        size = fine.shape[-2:]
        start = 2 * F.interpolate(motion[None], size, mode="bilinear", align_corners=False)[0]

        # 2. near that, at the latents' resolution
        near = match_nearby(fine, resample(ref_fine, start), scale_fine, radius=FINE_REACH)
        single = near.displacement + resample(start, near.displacement)
        extent = (image.shape[-2] / factor, image.shape[-1] / factor)
        weights = near.weights() * is_inside(single, extent)
        motion, agreement, trust = smooth_motion(single, weights, FINE_RADII, start=start)

        # 3. what speaks for it
        first = torch.stack([matches.score, matches.mass, matches.mutual])
        first = F.interpolate(first[None], size, mode="bilinear", align_corners=False)[0]
        found = torch.stack([near.score, near.mass, agreement, 4 * trust, is_inside(motion, extent)])
        return Correspondence(motion, torch.cat([first, found]))

    def trust(self, evidence: Tensor) -> Tensor:
        """How far each match of a reference is followed: its reliability, without the doubtful.

        Args:
            evidence: (B, 8, h, w).

        Returns:
            (B, 1, h, w) in [0, 1].
        """
        reliability = torch.sigmoid(self.reliability(evidence))
        share = (reliability > 0.5).float().mean((-2, -1), keepdim=True)
        related = ((share - RELATED[0]) / (RELATED[1] - RELATED[0])).clamp(0, 1)
        return related * ((reliability - DOUBT) / (1 - DOUBT)).clamp(0)

    def choose(
        self, warped: Sequence[Tensor], evidence: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of several references, at each place the most reliable.

        Returns:
            Reference (B, 3, H, W), evidence (B, 8, H/4, W/4) and reliability (B, 1, H/4, W/4) at each place,
            and the number of the reference (B, H/4, W/4).
        """
        trusts = [self.trust(maps) for maps in evidence]
        if len(warped) == 1:
            number = torch.zeros(trusts[0][:, 0].shape, dtype=torch.int64, device=trusts[0].device)
            return warped[0], evidence[0], trusts[0], number
        reliability = torch.stack(trusts)  # (R, B, 1, h, w)
        calm = F.avg_pool2d(reliability.flatten(0, 1), 3, 1, 1, count_include_pad=False)
        shares = torch.softmax(CHOICE * calm.reshape(reliability.shape), 0)
        per_pixel = [
            F.interpolate(share, warped[0].shape[-2:], mode="bilinear", align_corners=False)
            for share in shares
        ]
        image = sum(share * w for share, w in zip(per_pixel, warped, strict=True))
        maps = sum(share * e for share, e in zip(shares, evidence, strict=True))
        return image, maps, (shares * reliability).sum(0), shares.argmax(0)[:, 0]


def warp(image: Tensor, displacement: Tensor, factor: int) -> Tensor:
    """The reference (3, H', W') resampled to (3, factor * h, factor * w)."""
    size = (displacement.shape[-2] * factor, displacement.shape[-1] * factor)
    pixels = F.interpolate(displacement[None], size, mode="bilinear", align_corners=False)[0]
    return resample(image, pixels * factor, mode="bicubic").clamp(0, 1)
