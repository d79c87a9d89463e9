"""What one pass over a reference leaves behind: all that an injection into another image needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

_HIDDEN, _DIRECTION = "hidden/", "direction/"


@dataclass(frozen=True)
class ReferenceBank:
    """Attention inputs and gate directions of a reference at one diffusion step; plain tensors.

    Kept are the (normalised) inputs of the self-attentions, not keys and values: those are two linear maps
    away, and the inputs are half their size and safe in float16.
    """

    hidden: dict[str, Tensor] = field(default_factory=dict)
    """Site name -> (B, L_S, C)."""
    direction: dict[str, Tensor] = field(default_factory=dict)
    """Gate name -> (B, C) float32, `rasr.fusion.attention.operations.mean_direction`."""
    step: int = 0
    """Diffusion step (from 0) at which it was recorded."""
    weight: float = 1.0
    """a_n, the share of this reference among several; the shares of one injection sum to 1."""

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in (*self.hidden.values(), *self.direction.values()))

    def with_weight(self, weight: float) -> ReferenceBank:
        """The same tensors with another share."""
        return replace(self, weight=weight)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ReferenceBank:
        """A copy elsewhere or in another dtype; directions stay in float32."""
        hidden = {name: tensor.to(device, dtype) for name, tensor in self.hidden.items()}
        direction = {name: tensor.to(device) for name, tensor in self.direction.items()}
        return replace(self, hidden=hidden, direction=direction)

    def state_dict(self) -> dict[str, Tensor]:
        """Flat tensors, fit for safetensors."""
        tensors = {_HIDDEN + name: tensor.contiguous() for name, tensor in self.hidden.items()}
        return tensors | {_DIRECTION + name: tensor.contiguous() for name, tensor in self.direction.items()}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> ReferenceBank:
        """Inverse of `state_dict`; step and weight are the defaults."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        return cls(under(_HIDDEN), under(_DIRECTION))
