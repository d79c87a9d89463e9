"""Building RASRNet from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasr.errors import RasrError
from rasr.fusion.registry import get_fusion, make_fusion
from rasr.fusion.residual import ResidualFusion
from rasr.models.backbone import OneStepBackbone
from rasr.models.backbone_files import DEFAULT_HUB_ID
from rasr.models.rasr_net import RASRNet


@dataclass(frozen=True)
class RASRNetConfig:
    """Everything besides tensors that a RASRNet is made of; plain values, kept in every weight file."""

    backbone: str = DEFAULT_HUB_ID
    """Diffusers-format directory or hub id of the base weights."""
    osediff_weights: str | None = None
    """`osediff.pkl` or its safetensors form, merged into the backbone but not into the branch."""
    timestep: int | None = None
    """The backbone's one diffusion time; None is the schedule's last (999)."""
    rank: int = 4
    """LoRA rank of the branch."""
    lora_alpha: float = 8
    """LoRA scale times rank."""
    lora_layers: tuple[str, ...] | None = None
    """Ends of the names of the branch's layers with LoRA; None is every layer of its down blocks."""
    ref_timestep: int = 999
    """Diffusion time at which the branch sees the reference."""
    ref_prompt: str | None = ""
    """Text of the branch; None skips its cross-attention."""
    block_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 0.0)
    """Injection strength per decoder block."""
    text_blocks: tuple[int, ...] = (3,)
    """Decoder blocks that keep text when a reference is given."""
    scale: int = 4
    """Enlargement per side that the net was trained for."""
    color_fix: str = "adain"
    """Colour fix that its images want, where none is asked for (`rasr.inference.color_fix`)."""
    fusion: str = "residual"
    """How references enter (`rasr.fusion.registry`); from `rank` to `text_blocks` all is the residual's."""
    fusion_settings: dict[str, Any] = field(default_factory=dict)
    """Settings of any other fusion."""


def build_rasr_net(
    backbone: str | OneStepBackbone = DEFAULT_HUB_ID,
    *,
    osediff_weights: str | Path | None = None,
    timestep: int | None = None,
    rank: int = 4,
    lora_alpha: float = 8,
    lora_layers: Sequence[str] | None = None,
    ref_timestep: int = 999,
    ref_prompt: str | None = "",
    block_weights: Sequence[float] = (1.0, 1.0, 1.0, 0.0),
    text_blocks: Sequence[int] = (3,),
    scale: int = 4,
    color_fix: str = "adain",
    fusion: str = "residual",
    fusion_settings: Mapping[str, Any] | None = None,
) -> RASRNet:
    """A RASRNet with a freshly initialised fusion; the arguments are those of `RASRNetConfig`.

    `backbone` may also be a base backbone already built; its weight files then name no backbone to load
    again. OSEDiff's weights are merged into it in place.
    """
    config = RASRNetConfig(
        backbone=backbone if isinstance(backbone, str) else "",
        osediff_weights=None if osediff_weights is None else str(osediff_weights),
        timestep=timestep,
        rank=rank,
        lora_alpha=lora_alpha,
        lora_layers=None if lora_layers is None else tuple(lora_layers),
        ref_timestep=ref_timestep,
        ref_prompt=ref_prompt,
        block_weights=tuple(block_weights),
        text_blocks=tuple(text_blocks),
        scale=scale,
        color_fix=color_fix,
        fusion=fusion,
        fusion_settings=dict(fusion_settings or {}),
    )
    get_fusion(fusion)
    if fusion == ResidualFusion.name and config.fusion_settings:
        raise RasrError(
            "fusion_settings are of other fusions; the residual branch has keys of its own (rank, ...)"
        )
    if rank < 1:
        raise RasrError(f"rank={rank} is no LoRA; give at least 1 (the paper has 4)")
    if isinstance(backbone, str):
        backbone = OneStepBackbone.from_pretrained(backbone, timestep=timestep)
    n_steps = backbone.noise_scheduler.config.num_train_timesteps
    if not 0 <= ref_timestep < n_steps:
        raise RasrError(f"ref_timestep={ref_timestep} is outside the schedule; give 0 .. {n_steps - 1}")
    if fusion == ResidualFusion.name:
        built = ResidualFusion.from_unet(
            backbone.unet,
            rank,
            lora_alpha=lora_alpha,
            lora_layers=config.lora_layers,
            timestep=ref_timestep,
            ref_prompt=ref_prompt,
            block_weights=config.block_weights,
            text_blocks=config.text_blocks,
        )
        # The branch and its VAE encoder are copies of the base weights: they come before the merge.
        built.attach(backbone, copy_vae=osediff_weights is not None)
    if osediff_weights is not None:
        backbone.merge_osediff(osediff_weights)
    if fusion != ResidualFusion.name:
        # Shrunk as much as the photographs are: its descriptors must see the same condition.
        built = make_fusion(fusion, backbone, {"scale": scale} | config.fusion_settings)
    net = RASRNet(backbone, built, color_fix=color_fix)
    net.config = config
    return net


def build_backbone_net(
    backbone: str | OneStepBackbone, trainable: Sequence[str] = ("vae", "unet")
) -> RASRNet:
    """A RASRNet without a fusion whose VAE and UNet learn: how a backbone is trained from nothing.

    Args:
        backbone: backbone, or directory or hub id of one.
        trainable: the parts that learn, of "vae" and "unet".
    """
    if isinstance(backbone, str):
        backbone = OneStepBackbone.from_pretrained(backbone)
    backbone.make_trainable(trainable)
    return RASRNet(backbone)
