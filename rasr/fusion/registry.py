"""The fusions by name, as configuration and weight files know them."""

from __future__ import annotations

from typing import Any

from rasr.errors import RasrError
from rasr.fusion.base import ReferenceFusion
from rasr.fusion.correspondence import CorrespondenceFusion
from rasr.fusion.residual import ResidualFusion
from rasr.models.backbone import OneStepBackbone

FUSIONS: dict[str, type[ReferenceFusion]] = {}


def register_fusion(fusion: type[ReferenceFusion]) -> type[ReferenceFusion]:
    """Makes a fusion known by its `name`; a class decorator for fusions outside the package."""
    if not fusion.name:
        raise ValueError(f"{fusion.__name__} has no name")
    FUSIONS[fusion.name] = fusion
    return fusion


register_fusion(ResidualFusion)
register_fusion(CorrespondenceFusion)


def get_fusion(name: Any) -> type[ReferenceFusion]:
    """The fusion of that name; an unknown one is a RasrError."""
    if not isinstance(name, str) or name not in FUSIONS:
        raise RasrError(f"fusion={name!r} is unknown; give one of {', '.join(FUSIONS)}")
    return FUSIONS[name]


def make_fusion(name: str, backbone: OneStepBackbone, settings: dict[str, Any]) -> ReferenceFusion:
    """A fresh fusion over a backbone; a RasrError names an unknown name or setting."""
    return get_fusion(name).from_backbone(backbone, **settings)
