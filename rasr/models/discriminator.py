"""The discriminator (rasr paper, "Training Objectives"; Kumari et al. 2022): small heads on a frozen DINO.

It returns logits; what is made of them is a loss (`rasr.losses.adversarial`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from rasr.errors import RasrError
from rasr.image_ops import IMAGENET_MEAN, IMAGENET_STD
from rasr.models.diff_augment import diff_augment
from rasr.pretrained import load_timm_model

MIN_GRID = 4  # patches per side that the map heads need


class DinoDiscriminator(nn.Module):
    """Judges images by the features of a vision transformer that never changes.

    Two kinds of heads: one per block in `blocks` on the map of its patch tokens, and one on the last block's
    class token. All tokens pass the transformer's final LayerNorm. Only the heads train: the transformer
    `vit` stays frozen and in evaluation mode whatever `train` and `requires_grad_` are told, but gradients
    pass through it to the images. `vit` may be kept in half precision; the heads compute in at least float32.

    Besides parameters the heads have buffers that training changes (the power iteration of the spectral
    norm): to go on bit for bit, save all of `heads.state_dict()`.

    Args:
        vit: a timm vision transformer with a class token, or the name of one; sizes come from it.
        weights: file with the weights of a `vit` given by name; None takes the Hugging Face cache or hub.
        blocks: blocks whose patch tokens are judged, counted from 1, so that 12 is the last of 12. (Choice:
            "blocks 5 and 9" counted so are the layers of the vision-aided GAN's own DINO.)
        width: hidden channels of the heads.
        augment: whether every image passes DiffAugment first.
    """

    def __init__(
        self,
        vit: str | nn.Module = "vit_base_patch16_224.dino",
        *,
        weights: str | None = None,
        blocks: Sequence[int] = (5, 9),
        width: int = 128,
        augment: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(vit, str):
            alternative = "train without the GAN term: loss=mse_lpips_gram discriminator=none"
            vit = load_timm_model(vit, weights, key="discriminator.weights", alternative=alternative)
        if not hasattr(vit, "cls_token") or not hasattr(vit, "forward_intermediates"):
            name = type(vit).__name__
            raise RasrError(f"discriminator.vit is a {name}; give one of timm's vision transformers")
        depth, grid = len(vit.blocks), vit.patch_embed.grid_size
        if not blocks or not all(1 <= block <= depth for block in blocks):
            raise RasrError(f"discriminator.blocks={list(blocks)}; give some of the blocks 1 to {depth}")
        if vit.cls_token is None or min(grid) < MIN_GRID:
            has = f"{'no' if vit.cls_token is None else 'a'} class token and {grid[0]}x{grid[1]} patches"
            raise RasrError(f"discriminator.vit has {has}; give one with a token and {MIN_GRID}x{MIN_GRID}")
        self.blocks = sorted(set(blocks))
        self.augment = augment
        self.vit = vit
        heads: list[nn.Module] = [_make_map_head(vit.embed_dim, width) for _ in self.blocks]
        self.heads = nn.ModuleList([*heads, _make_token_head(vit.embed_dim, width)])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(True).train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits of "real": a (B, 1, h, w) per block, then (B, 1)."""
        # 1. what the transformer wants to see
        x = images.to(torch.promote_types(images.dtype, torch.float32))
        if self.augment:
            x = diff_augment(x)
        x = F.interpolate(x, size=self.vit.patch_embed.img_size, mode="area")
        x = (x - self.mean) / self.std
        # 2. its features
        tokens, maps = self.vit.forward_intermediates(
            x.to(self.vit.cls_token.dtype), indices=[block - 1 for block in self.blocks], norm=True
        )
        # 3. heads: small, and the power iteration does not work in half precision
        with torch.autocast(images.device.type, enabled=False):
            dtype = torch.promote_types(tokens.dtype, torch.float32)
            features = [*maps, tokens[:, 0]]
            return [head(feature.to(dtype)) for head, feature in zip(self.heads, features, strict=True)]

    def train(self, mode: bool = True) -> DinoDiscriminator:
        """Puts the heads in training or evaluation mode; the transformer stays in the latter."""
        super().train(mode)
        self.vit.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> DinoDiscriminator:
        """Freezes or unfreezes the heads; the transformer stays frozen."""
        super().requires_grad_(requires_grad)
        self.vit.requires_grad_(False)
        return self


class BlurPool(nn.Module):
    """Binomial low-pass [1, 3, 3, 1] per channel, before a convolution with stride (Zhang 2019).

    Args:
        padding: zeros around the map; the output is larger by `2 * padding - 3`.
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", taps[:, None] * taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, padding=self.padding, groups=channels)


def _make_map_head(channels: int, width: int) -> nn.Sequential:
    """(B, C, 14, 14) -> (B, 1, 3, 3); the paddings are those of the vision-aided GAN."""
    return nn.Sequential(
        BlurPool(padding=2),
        spectral_norm(nn.Conv2d(channels, width, 3, stride=2)),
        nn.LeakyReLU(0.2),
        BlurPool(padding=1),
        spectral_norm(nn.Conv2d(width, 1, 1, stride=2)),
    )


def _make_token_head(channels: int, width: int) -> nn.Sequential:
    """(B, C) -> (B, 1)."""
    return nn.Sequential(
        spectral_norm(nn.Linear(channels, width)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(width, 1))
    )
