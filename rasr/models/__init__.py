"""Networks: the one-step backbone, the reference branch and RASRNet over both."""

from rasr.models.backbone import OneStepBackbone, load_base_vae
from rasr.models.build import build_backbone_net, build_rasr_net
from rasr.models.discriminator import DinoDiscriminator
from rasr.models.pretrained_folder import SHIPPED_WEIGHTS, find_weights, upload_folder
from rasr.models.rasr_net import RASRNet
from rasr.models.reference_branch import ReferenceBranch, ReferenceFeatures
from rasr.models.small import make_small_backbone
from rasr.models.tiny import make_tiny_backbone
from rasr.models.weights import load_rasr_net, save_weights

__all__ = [
    "SHIPPED_WEIGHTS",
    "DinoDiscriminator",
    "OneStepBackbone",
    "RASRNet",
    "ReferenceBranch",
    "ReferenceFeatures",
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
