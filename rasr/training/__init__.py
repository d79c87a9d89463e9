"""Training: the Lightning module and what surrounds it."""

from rasr.training.backbone_module import BackboneModule
from rasr.training.checkpoint_io import AtomicCheckpointIO
from rasr.training.ema import EMA
from rasr.training.final_checkpoint import FinalCheckpoint
from rasr.training.module import RASRModule
from rasr.training.panels import ValidationPanels

__all__ = ["EMA", "AtomicCheckpointIO", "BackboneModule", "FinalCheckpoint", "RASRModule", "ValidationPanels"]
