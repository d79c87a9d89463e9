"""Training: the Lightning module and what surrounds it."""

from rasr.training.backbone_module import AutoencoderModule, BackboneModule, LatentModule
from rasr.training.checkpoint_io import AtomicCheckpointIO
from rasr.training.correspondence_module import CorrespondenceModule
from rasr.training.ema import EMA
from rasr.training.last_checkpoint import LastCheckpoint
from rasr.training.module import RASRModule
from rasr.training.panels import ValidationPanels

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "AutoencoderModule",
    "BackboneModule",
    "CorrespondenceModule",
    "LastCheckpoint",
    "LatentModule",
    "RASRModule",
    "ValidationPanels",
]
