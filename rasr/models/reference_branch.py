"""The trainable reference branch F_ref: a ControlNet copy of the UNet encoder that sees only the reference.

RASR paper, section 3.2 and Fig. 3. It has no hint embedding: its input is the reference latent itself.
Because text and timestep are fixed, its features are a pure function of the reference image and can be kept
(`ReferenceFeatures`). Where they go in the decoder is decided by `rasr.models.rasr_net.RASRNet`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.models.backbone import OneStepBackbone, encode_latents
from rasr.models.lora import add_lora
from rasr.models.unet_passes import install_text_gate, run_encoder


@dataclass(frozen=True)
class ReferenceFeatures:
    """Residuals of the branch for a batch of references, before any strength is applied."""

    down_block_res_samples: tuple[Tensor, ...]
    """One (B, C_i, h_i, w_i) tensor per skip feature of the UNet, in encoder order (12 on SD-2.1)."""
    mid_block_res_sample: Tensor
    """(B, C, h, w) at the mid block's size."""

    def map(self, function: Callable[[Tensor], Tensor]) -> ReferenceFeatures:
        """A copy with `function` applied to every tensor (move, cast, expand, index)."""
        down = tuple(function(t) for t in self.down_block_res_samples)
        return ReferenceFeatures(down, function(self.mid_block_res_sample))

    def state_dict(self) -> dict[str, Tensor]:
        """Flat tensors, fit for safetensors."""
        tensors = {f"down.{i:02d}": t.contiguous() for i, t in enumerate(self.down_block_res_samples)}
        return tensors | {"mid": self.mid_block_res_sample.contiguous()}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> ReferenceFeatures:
        """Inverse of `state_dict`."""
        down = tuple(tensors[key] for key in sorted(tensors) if key.startswith("down."))
        return cls(down, tensors["mid"])


class ReferenceBranch(nn.Module):
    """ControlNet encoder with LoRA on its down blocks and trainable zero-convolutions (rasr.md 2.2).

    Frozen: the copied encoder, time embedding and mid block. Trainable: LoRA on every Linear and Conv2d
    inside the down blocks and all zero-convolutions (13 on SD-2.1: 12,801,152 parameters at rank 4, the
    paper's 12.8 M). LoRA alone would never learn: behind frozen zero-convolutions all its gradients are 0.

    Args:
        net: ControlNet without conditioning embedding, adapters in place.
        timestep: diffusion time at which the reference is seen.
        ref_prompt: text of the branch; "" is the base model's unconditional embedding (the paper excludes
            text; choice: paper silent), None skips its cross-attention altogether.
    """

    def __init__(self, net: ControlNetModel, *, timestep: int = 999, ref_prompt: str | None = "") -> None:
        super().__init__()
        self.net = net
        self.timestep = timestep
        self.ref_prompt = ref_prompt
        self.vae: AutoencoderKL | None = None
        self.register_buffer("prompt_embeds", None, persistent=False)

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
    ) -> ReferenceBranch:
        """Copies the encoder of the *base* UNet and adds what is trainable.

        Args:
            unet: UNet before any OSEDiff weights were merged into it.
            rank: LoRA rank (paper: 4).
            lora_alpha: LoRA scale times rank; choice: paper silent, peft's default as in OSEDiff.
            lora_layers: ends of the names of the layers that get LoRA, such as ("to_q", "to_v", "conv1");
                None is every layer of the down blocks (choice: paper silent; it gives the paper's 12.8 M).
            timestep: see the class.
            ref_prompt: see the class.
        """
        net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8,))
        net.controlnet_cond_embedding = None  # the reference latent is the input; there is no hint image
        if net.dtype != unet.dtype:
            net.to(unet.dtype)
        net.requires_grad_(False)
        install_text_gate(net)
        add_lora(net, lora_targets(net, lora_layers), rank=rank, alpha=lora_alpha)
        branch = cls(net, timestep=timestep, ref_prompt=ref_prompt)
        branch.zero_convs().requires_grad_(True)
        # Optimiser and zero-convolutions need float32 even over a bf16 copy of the encoder.
        for parameter in branch.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return branch

    def zero_convs(self) -> nn.ModuleList:
        """The convolutions that start at zero, down blocks first, mid block last."""
        return nn.ModuleList([*self.net.controlnet_down_blocks, self.net.controlnet_mid_block])

    def attach(self, backbone: OneStepBackbone, *, copy_vae: bool = False) -> None:
        """Gives the branch what it needs to start from an image: the base VAE encoder and its fixed text.

        Args:
            backbone: base backbone.
            copy_vae: keep an own copy of the VAE; needed when OSEDiff's LoRA will be merged into the
                backbone's encoder, which the reference must not pass (rasr.md 2.2).

        Raises:
            RasrError: OSEDiff's weights are in the backbone already.
        """
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


def lora_targets(net: ControlNetModel, ends: Sequence[str] | None = None) -> list[str]:
    """Names of the Linear and Conv2d layers inside the down blocks that get LoRA.

    Args:
        net: the branch's network.
        ends: ends of names, whole words between dots; None is all of them: attention, feed-forward,
            projections, convolutions, shortcuts, time projections, downsamplers.

    Raises:
        RasrError: an end that no layer's name has.
    """
    names = [
        f"down_blocks.{name}"
        for name, module in net.down_blocks.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if ends is None:
        return names
    for end in ends:
        if not any(name.endswith(f".{end}") for name in names):
            known = ", ".join(sorted({name.split(".")[-1] for name in names if not name[-1].isdigit()}))
            raise RasrError(f"lora_layers: no layer's name ends with {end!r}; give some of {known}")
    return [name for name in names if any(name.endswith(f".{end}") for end in ends)]
