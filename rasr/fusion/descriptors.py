"""Learnt descriptors: which places of two pictures show the same thing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, h, w), position by position.

    Statistics of single positions, not of the picture: descriptors of a tile equal those of the whole.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class DescriptorHead(nn.Module):
    """Small head on the frozen backbone's own decoder features.

    Args:
        latent_channels: channels of the latents x0.
        block_channels: output channels of the UNet decoder's blocks, first to last. The last two have the
            latents' resolution (every SD UNet), the one before half, the first a quarter.
        coarse_dim: length of the coarse descriptors, at half the latents' resolution.
        fine_dim: length of the fine ones, at the latents' resolution.
        width: channels inside.
    """

    def __init__(
        self,
        latent_channels: int,
        block_channels: tuple[int, ...],
        *,
        coarse_dim: int = 64,
        fine_dim: int = 32,
        width: int = 96,
    ) -> None:
        super().__init__()
        first, second, _, last = block_channels
        fine_in = last + latent_channels
        self.norms = nn.ModuleList([ChannelNorm(c) for c in (first, second, fine_in)])
        self.from_first = nn.Conv2d(first, width, 1)
        self.from_second = nn.Conv2d(second, width, 1)
        self.from_fine = nn.Conv2d(fine_in, width, 2, stride=2)
        self.mix = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.coarse = nn.Conv2d(width, coarse_dim, 1)
        self.fine_in = nn.Conv2d(fine_in, fine_dim, 3, padding=1)
        self.fine_context = nn.Conv2d(width, fine_dim, 1)
        self.fine = nn.Sequential(nn.GELU(), nn.Conv2d(fine_dim, fine_dim, 3, padding=1))
        self.log_scale = nn.Parameter(torch.tensor([3.0, 3.0]))
        """Of coarse and fine cosines before a softmax; learnt with InfoNCE (its temperature's inverse)."""

    def forward(self, x0: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Unit descriptors.

        Args:
            x0: (B, C, h, w).
            features: of the decoder's blocks, see the class.

        Returns:
            coarse (B, Dc, h/2, w/2) and fine (B, Df, h, w).
        """
        first, second, last = features[0], features[1], torch.cat([features[3], x0.to(features[3].dtype)], 1)
        first, second, last = (
            norm(x.float()) for norm, x in zip(self.norms, (first, second, last), strict=True)
        )
        hidden = self.from_second(second) + self.from_fine(last)
        hidden = hidden + F.interpolate(
            self.from_first(first), hidden.shape[-2:], mode="bilinear", align_corners=False
        )
        hidden = self.mix(hidden)
        coarse = self.coarse(hidden)
        fine = self.fine_in(last) + F.interpolate(
            self.fine_context(hidden), last.shape[-2:], mode="bilinear", align_corners=False
        )
        return F.normalize(coarse, dim=1), F.normalize(self.fine(fine), dim=1)

    def scales(self) -> tuple[float, float]:
        """Factors on coarse and fine cosines."""
        coarse, fine = self.log_scale.detach().exp().tolist()
        return coarse, fine
