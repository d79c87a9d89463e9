"""What makes low-quality images of clean ones: each is a class and a yaml in conf/degradation/."""

from rasr.degradation.base import Degradation
from rasr.degradation.pipeline import RealESRGANDegradation

__all__ = ["Degradation", "RealESRGANDegradation"]
