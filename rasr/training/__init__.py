"""Training: the Lightning module and what surrounds it."""

from rasr.training.backbone_module import BackboneModule
from rasr.training.checkpoint_io import AtomicCheckpointIO
from rasr.training.module import RASRModule

__all__ = ["AtomicCheckpointIO", "BackboneModule", "RASRModule"]
