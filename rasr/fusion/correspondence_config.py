"""What a correspondence fusion is made of, besides tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rasr.errors import RasrError


@dataclass(frozen=True)
class CorrespondenceConfig:
    """What a correspondence fusion is made of, besides tensors."""

    scale: int = 4
    """The reference is shrunk by this before its descriptors are made: the photograph's condition."""
    coarse_dim: int = 64
    """Length of the coarse descriptors."""
    fine_dim: int = 32
    """Length of the fine descriptors."""
    head_width: int = 96
    """Channels inside the descriptor head."""
    transfer_width: int = 48
    """Channels inside the transfer net."""
    transfer_depth: int = 3
    """Residual blocks of the transfer net."""
    ref_size: int = 768
    """References with a longer side are shrunk to it, pixels."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RasrError(f"fusion {name}={value!r}: give a whole number of at least 1")
