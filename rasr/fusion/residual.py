"""The trainable reference branch F_ref: a ControlNet copy of the UNet encoder that sees only the reference.

RASR paper, section 3.2, Eq. 6 and Fig. 3. It has no hint embedding: its input is the reference latent itself.
Because text and timestep are fixed, its features are a pure function of the reference image and can be kept
(`ReferenceFeatures`). They are added to the skips that the frozen decoder consumes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from rasr.backbones.lora import add_lora, lora_layers, merge_lora
from rasr.backbones.one_step import OneStepBackbone
from rasr.backbones.unet_passes import EncoderOutput, install_text_gate, run_encoder
from rasr.backbones.vae import encode_latents
from rasr.config.net import RASRNetConfig
from rasr.errors import RasrError
from rasr.fusion.base import ANY_USE, Kept, ReferenceFusion, ReferenceUse, add_weights
from rasr.fusion.reference_features import ReferenceFeatures, crop_latents, lora_targets
from rasr.image_ops import cover_and_crop


class ResidualFusion(ReferenceFusion):
    """ControlNet encoder with LoRA on its down blocks and trainable zero-convolutions.

    Frozen: the copied encoder, time embedding and mid block. Trainable: LoRA on every Linear and Conv2d
    inside the down blocks and all zero-convolutions (13 on SD-2.1: 12,801,152 parameters at rank 4, the
    paper's 12.8 M). LoRA alone would never learn: behind frozen zero-convolutions all its gradients are 0.

    Args:
        net: ControlNet without conditioning embedding, adapters in place.
        timestep: diffusion time at which the reference is seen.
        ref_prompt: text of the branch; "" is the base model's unconditional embedding (the paper excludes
            text; choice: paper silent), None skips its cross-attention altogether.
        block_weights: strength per decoder block, multiplied with the fusion's; the paper injects into blocks
            0, 1, 2 only.
        text_blocks: decoder blocks that keep text cross-attention when a reference is given; the paper drops
            it in blocks 0, 1, 2.
    """

    name = "residual"
    file_name = "reference_branch.safetensors"
    file_prefix = "branch."
    default_strength = 0.5
    max_references = 1
    copies_base_weights = True

    def __init__(
        self,
        net: ControlNetModel,
        *,
        timestep: int = 999,
        ref_prompt: str | None = "",
        block_weights: Sequence[float] = (1.0, 1.0, 1.0, 0.0),
        text_blocks: Sequence[int] = (3,),
    ) -> None:
        super().__init__()
        self.block_weights = tuple(float(w) for w in block_weights)
        self.text_blocks = tuple(text_blocks)
        self.net = net
        self.timestep = timestep
        self.ref_prompt = ref_prompt
        self.vae: AutoencoderKL | None = None
        self.register_buffer("prompt_embeds", None, persistent=False)

    @classmethod
    def check_config(cls, config: RASRNetConfig) -> None:
        """See `ReferenceFusion`."""
        if config.fusion_settings:
            raise RasrError(
                "fusion_settings are of other fusions; the residual branch has keys of its own (rank, ...)"
            )

    @classmethod
    def from_config(cls, backbone: OneStepBackbone, config: RASRNetConfig) -> ResidualFusion:
        """See `ReferenceFusion`."""
        branch = cls.from_unet(
            backbone.unet,
            config.rank,
            lora_alpha=config.lora_alpha,
            lora_layers=config.lora_layers,
            timestep=config.ref_timestep,
            ref_prompt=config.ref_prompt,
            block_weights=config.block_weights,
            text_blocks=config.text_blocks,
        )
        branch.attach(backbone, copy_vae=config.osediff_weights is not None)
        return branch

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        rank: int = 4,
        *,
        lora_alpha: float = 8,
        lora_layers: Sequence[str] | None = None,
        timestep: int = 999,
        ref_prompt: str | None = "",
        block_weights: Sequence[float] = (1.0, 1.0, 1.0, 0.0),
        text_blocks: Sequence[int] = (3,),
    ) -> ResidualFusion:
        """Copies the encoder of the *base* UNet and adds what is trainable.

        Args:
            unet: UNet before any OSEDiff weights were merged into it.
            rank: LoRA rank (paper: 4).
            lora_alpha: LoRA scale times rank; choice: paper silent, peft's default as in OSEDiff.
            lora_layers: ends of the names of the layers that get LoRA, such as ("to_q", "to_v", "conv1");
                None is every layer of the down blocks (choice: paper silent; it gives the paper's 12.8 M).
            timestep: see the class, as `ref_prompt`, `block_weights` and `text_blocks`.
        """
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8,))
        net.controlnet_cond_embedding = None  # the reference latent is the input; there is no hint image
        if net.dtype != unet.dtype:
            net.to(unet.dtype)
        net.requires_grad_(False)
        install_text_gate(net)
        add_lora(net, lora_targets(net, lora_layers), rank=rank, alpha=lora_alpha)
        branch = cls(
            net,
            timestep=timestep,
            ref_prompt=ref_prompt,
            block_weights=block_weights,
            text_blocks=text_blocks,
        )
        branch.zero_convs().requires_grad_(True)
        # Optimiser and zero-convolutions need float32 even over a bf16 copy of the encoder.
        for parameter in branch.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return branch

    def zero_convs(self) -> nn.ModuleList:
        """The convolutions that start at zero, down blocks first, mid block last."""
        return nn.ModuleList([*self.net.controlnet_down_blocks, self.net.controlnet_mid_block])

    @property
    def is_attached(self) -> bool:
        """See `ReferenceFusion`."""
        return self.vae is not None

    def attach(self, backbone: OneStepBackbone, *, copy_vae: bool = False) -> None:
        """Gives the branch what it needs to start from an image: the base VAE encoder and its fixed text.

        Args:
            backbone: base backbone.
            copy_vae: keep an own copy of the VAE; needed when OSEDiff's LoRA will be merged into the
                backbone's encoder, which the reference must not pass.

        Raises:
            RasrError: OSEDiff's weights are in the backbone already.
        """
        n_blocks = len(backbone.unet.up_blocks)
        if len(self.block_weights) != n_blocks or not set(self.text_blocks) <= set(range(n_blocks)):
            raise RasrError(
                f"block_weights={list(self.block_weights)}, text_blocks={list(self.text_blocks)} do not fit "
                f"a decoder of {n_blocks} blocks: give {n_blocks} weights and text blocks out of "
                f"0..{n_blocks - 1}"
            )
        if backbone.osediff_weights is not None:
            raise RasrError(
                f"the backbone already holds the OSEDiff weights {backbone.osediff_weights}, but a reference "
                "branch starts from the base weights; use build_rasr_net(backbone=BASE, osediff_weights=FILE)"
            )
        vae = copy.deepcopy(backbone.vae) if copy_vae else backbone.vae
        if copy_vae:
            vae.decoder = None
        self.vae = vae
        self.prompt_embeds = None if self.ref_prompt is None else backbone.encode_prompt([self.ref_prompt])

    @torch.no_grad()
    def encode(self, ref: Tensor) -> Tensor:
        """Reference images (B, 3, H, W) in [0, 1] -> latents z_ref (B, C, H/f, W/f) by the base VAE."""
        if self.vae is None:
            raise RuntimeError("call attach(backbone) first: the branch has no VAE to encode images with")
        return encode_latents(self.vae, ref)

    def features_from_latents(self, ref_latents: Tensor) -> ReferenceFeatures:
        """Latents z_ref (B, C, h, w) -> residuals."""
        net = self.net
        ref_latents = ref_latents.to(net.conv_in.weight.dtype)
        embeds = self.prompt_embeds
        if embeds is not None:
            embeds = embeds.to(ref_latents).expand(ref_latents.shape[0], -1, -1)
        encoded = run_encoder(net, ref_latents, self.timestep, embeds)
        # The zero-convolutions stay in float32 (see from_unet); their inputs follow.
        convs = net.controlnet_down_blocks
        down = tuple(
            conv(skip.to(conv.weight.dtype)) for conv, skip in zip(convs, encoded.skips, strict=True)
        )
        mid = net.controlnet_mid_block
        return ReferenceFeatures(down, mid(encoded.hidden_states.to(mid.weight.dtype)))

    def features(self, ref: Tensor) -> ReferenceFeatures:
        """References (B, 3, H, W) in [0, 1] -> residuals; H, W multiples of the backbone's size_multiple."""
        return self.features_from_latents(self.encode(ref))

    forward = features

    def keep(self, backbone: OneStepBackbone, ref: Tensor, use: ReferenceUse = ANY_USE) -> Kept:
        """z_ref: the cheapest point to cut, whatever the branch has learnt."""
        return {"latents": self.encode(ref if use.tile is None else cover_and_crop(ref, use.tile))}

    def to_disk(self, kept: Kept) -> Kept:
        """In float16: 32 KB per image at 512x512 on SD-2.1."""
        return {"latents": kept["latents"].half()}

    def from_disk(self, kept: Kept, tile: tuple[int, int]) -> Kept:
        """Cuts the centre of square latents to a tile's aspect, as an image is cut to it."""
        return {"latents": crop_latents(kept["latents"], tile)}

    def fingerprint(self, backbone: OneStepBackbone) -> str:
        """Of what turns images into latents: the base VAE's encoder and its scaling factor."""
        return vae_fingerprint(self.vae)

    def prepare(
        self, backbone: OneStepBackbone, kept: Kept | ReferenceFeatures, weight: float = 1.0
    ) -> ReferenceFeatures:
        """The branch's features of kept latents; features stay what they are."""
        return kept if isinstance(kept, ReferenceFeatures) else self.features_from_latents(kept["latents"])

    def inject(
        self,
        backbone: OneStepBackbone,
        encoded: EncoderOutput,
        prepared: Sequence[ReferenceFeatures],
        strength: float | Tensor,
    ) -> EncoderOutput:
        """Adds the branch's residuals to the skip features that each decoder block consumes (Eq. 6).

        Decoder block i takes the skips from the end of the list: block 0 also takes the mid residual. In
        training a block of weight 0 still gets `0 * residual`, so that every zero-convolution has a (zero)
        gradient and plain DDP works; in evaluation it is left untouched.
        """
        (features,) = prepared
        skips = list(encoded.skips)
        last = len(skips)
        for i, block in enumerate(backbone.unet.up_blocks):
            first = last - len(block.resnets)
            scale = self.block_weights[i] * strength
            if self._is_active(scale):
                for j in range(first, last):
                    skips[j] = add_residual(skips[j], features.down_block_res_samples[j], scale)
            last = first
        hidden_states = encoded.hidden_states
        scale = self.block_weights[0] * strength
        if self._is_active(scale):
            hidden_states = add_residual(hidden_states, features.mid_block_res_sample, scale)
        return replace(encoded, hidden_states=hidden_states, skips=tuple(skips))

    def merge(self) -> None:
        """Folds the LoRA into its layers."""
        merge_lora(self)

    def check_can_be_saved(self) -> None:
        """See `ReferenceFusion`."""
        if not lora_layers(self):
            raise ValueError("this net's LoRA is merged and cannot be saved; load it with merge=False")
        super().check_can_be_saved()

    def _is_active(self, scale: float | Tensor) -> bool:
        return self.training or isinstance(scale, Tensor) or scale != 0


def add_residual(hidden: Tensor, residual: Tensor, scale: float | Tensor) -> Tensor:
    """`hidden + scale * residual`; a residual of another reference size is resized to the feature map."""
    if residual.shape[-2:] != hidden.shape[-2:]:
        residual = F.interpolate(residual, hidden.shape[-2:], mode="bilinear", align_corners=False)
    return hidden + (scale * residual).to(hidden.dtype)


def vae_fingerprint(vae: AutoencoderKL) -> str:
    """Short hash of what turns images into latents: the encoder's weights and the scaling factor.

    The weights are compared in bf16, so that a net loaded in bf16 still knows the latents made in fp32.
    """
    digest = hashlib.sha256(str(vae.config.scaling_factor).encode())
    add_weights(digest, vae, ("encoder.", "quant_conv."))
    return digest.hexdigest()[:16]
