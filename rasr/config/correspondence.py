"""What a correspondence fusion is made of, besides tensors: the keys of `model.fusion_settings`."""

from __future__ import annotations

from dataclasses import dataclass

from rasr.config.keys import check_all, whole


@dataclass(frozen=True)
class CorrespondenceConfig:
    """Plain values, kept in every weight file."""

    scale: int = whole(4, "the reference is shrunk by this before its descriptors are made")
    coarse_dim: int = whole(64, "length of the coarse descriptors, at half the latents' resolution")
    fine_dim: int = whole(32, "length of the fine descriptors, at the latents' resolution")
    head_width: int = whole(96, "channels inside the descriptor head")
    transfer_width: int = whole(48, "channels inside the transfer net")
    transfer_depth: int = whole(3, "residual blocks of the transfer net")
    ref_size: int = whole(768, "references with a longer side are shrunk to it, pixels")

    def __post_init__(self) -> None:
        check_all(self, prefix="model.fusion_settings.")
