"""RASRNet: a backbone (`rasr.backbones`) and a fusion (`rasr.fusion`) as one net, and its weights."""

from rasr.backbones import OneStepBackbone, load_base_vae, make_small_backbone, make_tiny_backbone
from rasr.config.net import RASRNetConfig
from rasr.fusion.reference_features import ReferenceFeatures
from rasr.fusion.residual import ResidualFusion
from rasr.models.build import build_backbone_net, build_rasr_net
from rasr.models.discriminator import DinoDiscriminator
from rasr.models.finding import SHIPPED_WEIGHTS, find_weights
from rasr.models.pretrained_folder import upload_folder
from rasr.models.rasr_net import RASRNet
from rasr.models.weights import load_rasr_net, save_weights

__all__ = [
    "SHIPPED_WEIGHTS",
    "DinoDiscriminator",
    "OneStepBackbone",
    "RASRNet",
    "RASRNetConfig",
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
