"""Inference: from an image of any size to its restoration."""

from rasr.inference.latents import ReferenceLatents
from rasr.inference.restorer import Restorer, resolve_device
from rasr.inference.results import ResultsLog, output_paths

__all__ = ["ReferenceLatents", "Restorer", "ResultsLog", "output_paths", "resolve_device"]
