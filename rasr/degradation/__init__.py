"""Degradations: what makes low-quality images of clean ones. One is a class here and a file in conf/degradation/."""

from rasr.degradation.base import Degradation
from rasr.degradation.pipeline import RealESRGANDegradation

__all__ = ["Degradation", "RealESRGANDegradation"]
