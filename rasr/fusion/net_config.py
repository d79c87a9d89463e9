"""What a RASRNet is made of besides tensors: its backbone, and how references enter it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rasr.backbones.files import DEFAULT_HUB_ID


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
