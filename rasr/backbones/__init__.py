"""One-step super-resolution backbones: the frozen network below every fusion, its parts and its files."""

from rasr.backbones.one_step import OneStepBackbone, load_base_vae
from rasr.backbones.small import make_small_backbone
from rasr.backbones.tiny import make_tiny_backbone

__all__ = ["OneStepBackbone", "load_base_vae", "make_small_backbone", "make_tiny_backbone"]
