"""RASRNet: the one-step backbone plus the reference branch (rasr paper, Eq. 2 and 6, Fig. 3).

The one forward that a reader must see. Retrieval, resizing and tiling live elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.models.backbone import OneStepBackbone
from rasr.models.pretrained_folder import PretrainedFolder
from rasr.models.reference_branch import ReferenceBranch, ReferenceFeatures
from rasr.models.unet_passes import EncoderOutput


class RASRNet(PretrainedFolder, nn.Module):
    """Restores `lq_up` conditioned on a reference image.

    Tensors: `lq_up`, `ref` and `sr` are (B, 3, H, W) in [0, 1], RGB, float32, with H and W multiples of
    `backbone.size_multiple`; the reference may have another size than `lq_up`.

    Args:
        backbone: frozen one-step backbone (trainable only in the backbone's own training, without a branch).
        branch: reference branch; None leaves the backbone alone.
        block_weights: strength per decoder block, multiplied with `conditioning_scale`; the paper injects
            into blocks 0, 1, 2 only.
        text_blocks: decoder blocks that keep text cross-attention when a reference is given; the paper drops
            it in blocks 0, 1, 2.
        color_fix: colour fix that the images want where none is asked for (`rasr.inference.color_fix`).
            Diffusion backbones drift in colour; a backbone trained on pixels does not, and "none" suits it.
    """

    def __init__(
        self,
        backbone: OneStepBackbone,
        branch: ReferenceBranch | None = None,
        *,
        block_weights: Sequence[float] = (1.0, 1.0, 1.0, 0.0),
        text_blocks: Sequence[int] = (3,),
        color_fix: str = "adain",
    ) -> None:
        super().__init__()
        n_blocks = len(backbone.unet.up_blocks)
        if len(block_weights) != n_blocks or not set(text_blocks) <= set(range(n_blocks)):
            raise RasrError(
                f"block_weights={list(block_weights)}, text_blocks={list(text_blocks)} do not fit a decoder "
                f"of {n_blocks} blocks: give {n_blocks} weights and text blocks out of 0..{n_blocks - 1}"
            )
        self.backbone = backbone
        self.branch = branch
        self.block_weights = tuple(float(w) for w in block_weights)
        self.text_blocks = tuple(text_blocks)
        self.color_fix = color_fix
        if branch is not None and branch.vae is None:
            branch.attach(backbone)

    def forward(
        self,
        lq_up: Tensor,
        ref: Tensor | ReferenceFeatures | None = None,
        *,
        prompt: Sequence[str] | None = None,
        conditioning_scale: float | Tensor = 0.5,
    ) -> Tensor:
        """Restores a batch.

        Args:
            lq_up: (B, 3, H, W), LR resized to the HR grid.
            ref: reference images (B, 3, H', W'), features of them, or None for the backbone alone.
            prompt: B texts; None means empty ones.
            conditioning_scale: w in Eq. 6, a number or (B, 1, 1, 1); the paper has 1 in training and 0.5 at
                inference.

        Returns:
            sr: (B, 3, H, W).
        """
        prompt = [""] * lq_up.shape[0] if prompt is None else prompt
        if ref is None:
            return self.backbone(lq_up, prompt)
        if self.branch is None:
            raise ValueError("this RASRNet has no reference branch; call it without ref")

        # 1. reference branch
        self.backbone.check_size(lq_up)
        features = ref
        if isinstance(ref, Tensor):
            self.backbone.check_size(ref)
            features = self.branch.features(ref)

        # 2. UNet encoder on the LQ latents: frozen, so autograd records nothing here
        prompt_embeds = self.backbone.encode_prompt(prompt)
        latents = self.backbone.encode(lq_up)
        encoded = self.backbone.encode_unet(latents, prompt_embeds)

        # 3. injection and UNet decoder
        encoded = self.inject(encoded, features, conditioning_scale)
        noise_pred = self.backbone.decode_unet(encoded, prompt_embeds, self.text_blocks)

        # 4. image
        return self.backbone.decode(self.backbone.predict_x0(latents, noise_pred))

    def inject(
        self, encoded: EncoderOutput, features: ReferenceFeatures, conditioning_scale: float | Tensor
    ) -> EncoderOutput:
        """Adds the branch's residuals to the skip features that each decoder block consumes (Eq. 6).

        Decoder block i takes the skips from the end of the list: block 0 also takes the mid residual. In
        training a block of weight 0 still gets `0 * residual`, so that every zero-convolution has a (zero)
        gradient and plain DDP works; in evaluation it is left untouched.
        """
        skips = list(encoded.skips)
        last = len(skips)
        for i, block in enumerate(self.backbone.unet.up_blocks):
            first = last - len(block.resnets)
            scale = self.block_weights[i] * conditioning_scale
            if self._is_active(scale):
                for j in range(first, last):
                    skips[j] = add_residual(skips[j], features.down_block_res_samples[j], scale)
            last = first
        hidden_states = encoded.hidden_states
        scale = self.block_weights[0] * conditioning_scale
        if self._is_active(scale):
            hidden_states = add_residual(hidden_states, features.mid_block_res_sample, scale)
        return replace(encoded, hidden_states=hidden_states, skips=tuple(skips))

    def _is_active(self, scale: float | Tensor) -> bool:
        return self.training or isinstance(scale, Tensor) or scale != 0

    def train(self, mode: bool = True) -> RASRNet:
        """Keeps frozen parts in evaluation mode; only what is trainable follows `mode`."""
        super().train(mode)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()
        return self


def add_residual(hidden: Tensor, residual: Tensor, scale: float | Tensor) -> Tensor:
    """`hidden + scale * residual`; a residual of another reference size is resized to the feature map."""
    if residual.shape[-2:] != hidden.shape[-2:]:
        residual = F.interpolate(residual, hidden.shape[-2:], mode="bilinear", align_corners=False)
    return hidden + (scale * residual).to(hidden.dtype)


def count_parameters(net: nn.Module) -> tuple[int, int]:
    """(trainable, total) parameter counts; shared parameters count once."""
    parameters = list(net.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
