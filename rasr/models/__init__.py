"""Networks: the one-step backbone, RASRNet over it and a reference fusion, their weights.

Names are loaded when they are asked for: `rasr.fusion` needs parts of this package, and this package needs
it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasr.fusion.residual import ReferenceFeatures, ResidualFusion
    from rasr.models.backbone import OneStepBackbone, load_base_vae
    from rasr.models.build import build_backbone_net, build_rasr_net
    from rasr.models.discriminator import DinoDiscriminator
    from rasr.models.pretrained_folder import SHIPPED_WEIGHTS, find_weights, upload_folder
    from rasr.models.rasr_net import RASRNet
    from rasr.models.small import make_small_backbone
    from rasr.models.tiny import make_tiny_backbone
    from rasr.models.weights import load_rasr_net, save_weights

_PLACES = {
    "SHIPPED_WEIGHTS": "rasr.models.pretrained_folder",
    "DinoDiscriminator": "rasr.models.discriminator",
    "OneStepBackbone": "rasr.models.backbone",
    "RASRNet": "rasr.models.rasr_net",
    "ReferenceFeatures": "rasr.fusion.residual",
    "ResidualFusion": "rasr.fusion.residual",
    "build_backbone_net": "rasr.models.build",
    "build_rasr_net": "rasr.models.build",
    "find_weights": "rasr.models.pretrained_folder",
    "load_base_vae": "rasr.models.backbone",
    "load_rasr_net": "rasr.models.weights",
    "make_small_backbone": "rasr.models.small",
    "make_tiny_backbone": "rasr.models.tiny",
    "save_weights": "rasr.models.weights",
    "upload_folder": "rasr.models.pretrained_folder",
}

__all__ = [
    "SHIPPED_WEIGHTS",
    "DinoDiscriminator",
    "OneStepBackbone",
    "RASRNet",
    "ReferenceFeatures",
    "ResidualFusion",
    "build_backbone_net",
    "build_rasr_net",
    "find_weights",
    "load_base_vae",
    "load_rasr_net",
    "make_small_backbone",
    "make_tiny_backbone",
    "save_weights",
    "upload_folder",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
