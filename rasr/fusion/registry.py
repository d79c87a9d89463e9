"""The fusions by name, as configuration and weight files know them."""

from __future__ import annotations

from typing import Any

from rasr.errors import RasrError
from rasr.fusion.base import ReferenceFusion
from rasr.fusion.correspondence import CorrespondenceFusion
from rasr.fusion.residual import ResidualFusion

FUSIONS: dict[str, type[ReferenceFusion]] = {}


def register_fusion(fusion: type[ReferenceFusion]) -> type[ReferenceFusion]:
    """Makes a fusion known by its `name`; a class decorator for fusions outside the package."""
    if not fusion.name:
        raise ValueError(f"{fusion.__name__} has no name")
    if not fusion.file_name:
        fusion.file_name = f"{fusion.name}.safetensors"
    FUSIONS[fusion.name] = fusion
    return fusion


# The first of these that a folder of weights holds is its default.
register_fusion(CorrespondenceFusion)
register_fusion(ResidualFusion)


def get_fusion(name: Any) -> type[ReferenceFusion]:
    """The fusion of that name; an unknown one is a RasrError."""
    if not isinstance(name, str) or name not in FUSIONS:
        raise RasrError(
            f"fusion={name!r} is unknown; give one of {', '.join(FUSIONS)} (one of your own: name the module "
            "that registers it in RASR_PLUGINS)"
        )
    return FUSIONS[name]


def fusion_files() -> dict[str, str]:
    """Fusion -> its file in a folder of weights, the default first."""
    return {name: fusion.file_name for name, fusion in FUSIONS.items()}
