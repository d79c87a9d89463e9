"""Carries the detail of a reference that lies over the photograph into the restored image.

It works on the image, after the VAE's decoder: what a VAE loses (letters, faces) need not pass it once more,
and training needs no way back through backbone and decoder. Patches of 4 x 4 pixels are its tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasr.image_ops import local_mean

PATCH = 4
"""Side of a token in pixels, whatever the VAE's."""
EVIDENCE = 8
"""Maps that say how good a match is, see `rasr.fusion.correspondence`."""
TONE_RADIUS = 3
"""Tokens; in windows of this radius the reference takes the photograph's mean colour."""


class Reliability(nn.Module):
    """How likely it is that a match is right, from the evidence around it.

    It learns from known answers (binary cross-entropy) as well as from what the transfer makes of it.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(EVIDENCE, width, 5, padding=2), nn.GELU(), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, evidence: Tensor) -> Tensor:
        """(B, EVIDENCE, h, w) -> logits (B, 1, h, w)."""
        return self.net(evidence)


class DetailTransfer(nn.Module):
    """Gated transfer: `sr + g * (alpha * (reference - sr) + delta)`, all on patches.

    `alpha` and the convolution that makes `delta` start at 0: a fresh one adds exactly 0.

    Args:
        width: channels inside.
        depth: residual blocks.
    """

    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        pixels = 3 * PATCH**2
        self.enter = nn.Conv2d(2 * pixels + EVIDENCE + 1, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(
                    nn.GELU(),
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.GELU(),
                    nn.Conv2d(width, width, 3, padding=1),
                )
                for _ in range(depth)
            ]
        )
        self.alpha = nn.Parameter(torch.zeros(pixels))
        self.gate = nn.Conv2d(width, PATCH**2, 3, padding=1)
        self.delta = nn.Conv2d(width, pixels, 3, padding=1)
        for layer in (self.gate, self.delta):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, sr: Tensor, warped: Tensor, evidence: Tensor, reliability: Tensor) -> Tensor:
        """What is to be added to `sr`.

        Args:
            sr: (B, 3, H, W) in [0, 1], H and W multiples of PATCH.
            warped: (B, 3, H, W), the reference laid over it.
            evidence: (B, EVIDENCE, H/4, W/4).
            reliability: (B, 1, H/4, W/4) in [0, 1].

        Returns:
            (B, 3, H, W).
        """
        own, other = F.pixel_unshuffle(sr, PATCH), F.pixel_unshuffle(match_tone(warped, sr), PATCH)
        difference = other - own
        hidden = self.enter(torch.cat([own - 0.5, difference, evidence, reliability], 1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden = F.gelu(hidden)
        # A gate per pixel; the same for R, G and B.
        gate = 2 * torch.sigmoid(self.gate(hidden)).repeat(1, 3, 1, 1) * reliability
        change = gate * (self.alpha[:, None, None] * difference + self.delta(hidden))
        return F.pixel_shuffle(change, PATCH)


def match_tone(warped: Tensor, sr: Tensor) -> Tensor:
    """Gives the reference the local mean colours of the photograph: exposure and white balance differ.

    Args:
        warped: (B, 3, H, W).
        sr: (B, 3, H, W).
    """
    return warped + local_mean(sr - warped, cell=PATCH, radius=TONE_RADIUS)
