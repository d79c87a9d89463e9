"""Inference: from an image of any size to its restoration."""

from rasr.inference.restorer import Restorer

__all__ = ["Restorer"]
