"""Where a result's detail comes from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TAKEN = 0.5
"""Strength from which a place counts as taken from a reference."""


@dataclass(frozen=True)
class Provenance:
    """Where the detail of a result comes from; one position per patch of the image."""

    strength: Tensor
    """(B, h, w) in [0, 1]: how far the reference was followed."""
    reference: Tensor
    """(B, h, w), int64: number of the reference."""
    place: Tensor
    """(B, 2, h, w): the place (x, y) in that reference, as a share of its width and height."""


def restored_share(provenance: Provenance) -> float:
    """Share of the picture, in [0, 1], that took detail from a reference."""
    return (provenance.strength > TAKEN).float().mean().item()
